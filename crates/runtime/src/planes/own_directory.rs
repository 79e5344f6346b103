use std::fs;
use std::io;
use std::path::PathBuf;

use super::config::temporary_dir;

/// The directory of discovery where none is named: one of this user's under the directory for
/// temporary files, which is everyone's. What is there already is used only if it is a directory
/// that nobody else can change.
///
/// # Errors
///
/// If it cannot be made, or is not this user's alone.
#[cfg(unix)]
pub(super) fn own_directory() -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

    let user = rustix::process::geteuid().as_raw();
    let path = temporary_dir().join(format!("forebay-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&path)?;
    if found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0 {
        return Ok(path.join("discovery"));
    }
    let message = format!("{} is not this user's alone", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// The directory of discovery where none is named: one under the directory for temporary files,
/// which is this user's.
///
/// # Errors
///
/// If it cannot be made.
#[cfg(not(unix))]
pub(super) fn own_directory() -> io::Result<PathBuf> {
    let path = temporary_dir().join("forebay");
    fs::create_dir_all(&path)?;
    Ok(path.join("discovery"))
}
