use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of discovery, in this user's.
const NAME: &str = "discovery";

/// Where [`own_directory`] is.
pub(super) fn own_directory_path(everyones: &Path) -> PathBuf {
    users_own(everyones).join(NAME)
}

/// The directory of discovery where none is named: one of this user's in `everyones`, the directory
/// for temporary files. What is there already is used only if it is a directory
/// that nobody else can change.
///
/// # Errors
///
/// If it cannot be made, or is not this user's alone.
#[cfg(unix)]
pub(super) fn own_directory(everyones: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

    let user = rustix::process::geteuid().as_raw();
    let path = users_own(everyones);
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&path)?;
    if found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0 {
        return Ok(path.join(NAME));
    }
    let message = format!("{} is not this user's alone", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// The directory of discovery where none is named: one in `everyones`, the directory for temporary
/// files, which is this user's here.
///
/// # Errors
///
/// If it cannot be made.
#[cfg(not(unix))]
pub(super) fn own_directory(everyones: &Path) -> io::Result<PathBuf> {
    let path = users_own(everyones);
    fs::create_dir_all(&path)?;
    Ok(path.join(NAME))
}

#[cfg(unix)]
fn users_own(everyones: &Path) -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    everyones.join(format!("forebay-{user}"))
}

#[cfg(not(unix))]
fn users_own(everyones: &Path) -> PathBuf {
    everyones.join("forebay")
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_nobody_elses() {
        let everyones = tempfile::tempdir().unwrap();
        let directory = own_directory(everyones.path()).unwrap();
        assert_eq!(directory, own_directory_path(everyones.path()));
        let ours = directory.parent().unwrap();
        let mode = fs::metadata(ours).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(own_directory(everyones.path()).unwrap(), directory);

        fs::set_permissions(ours, fs::Permissions::from_mode(0o770)).unwrap();
        let error = own_directory(everyones.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);

        // Neither is what someone has made it point to.
        fs::remove_dir(ours).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), ours).unwrap();
        assert!(own_directory(everyones.path()).is_err());
    }
}
