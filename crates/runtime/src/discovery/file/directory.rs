use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use forebay_tokens::WorkerId;

use super::super::record;
use crate::names::EndpointId;

/// The largest file that is read or written: many times what a record takes.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;

/// Something of the directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", path.display())]
pub(super) struct FileError {
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Where everything is:
///
/// ```text
/// instances/NAMESPACE/COMPONENT/ENDPOINT/WORKER   an `InstanceRecord`
/// leases/LEASE                                    a `LeaseRecord`
/// ```
///
/// Files whose names begin with a dot are being written.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    /// A directory that exists, or is made now.
    pub(super) fn open(root: PathBuf) -> Result<Self, FileError> {
        let directory = Self { root };
        for folder in ["instances", "leases"] {
            let path = directory.root.join(folder);
            fs::create_dir_all(&path).map_err(FileError::at(&path))?;
        }
        Ok(directory)
    }

    /// Whether it is there, and can be read.
    pub(super) fn check(&self) -> Result<(), FileError> {
        let path = self.root.join("instances");
        fs::read_dir(&path).map(drop).map_err(FileError::at(&path))
    }

    pub(super) fn endpoint(&self, endpoint: &EndpointId) -> PathBuf {
        let names = [
            "instances",
            endpoint.namespace(),
            endpoint.component(),
            endpoint.endpoint(),
        ];
        names
            .iter()
            .fold(self.root.clone(), |path, name| path.join(name))
    }

    pub(super) fn instance(&self, endpoint: &EndpointId, worker: WorkerId) -> PathBuf {
        self.endpoint(endpoint).join(record::name(worker))
    }

    pub(super) fn lease(&self, lease: u64) -> PathBuf {
        self.leases().join(format!("{lease:016x}"))
    }

    pub(super) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// Puts a file in its place whole, so that nobody reads half of it. One writer, one `writer`.
    pub(super) fn write(&self, path: &Path, bytes: &[u8], writer: u64) -> Result<(), FileError> {
        self.check()?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(FileError::at(path)(unfit(TOO_LARGE)));
        }
        let folder = path.parent().unwrap_or(&self.root);
        let unfinished = folder.join(format!(".{writer:016x}"));
        fs::create_dir_all(folder).map_err(FileError::at(folder))?;
        fs::write(&unfinished, bytes).map_err(FileError::at(&unfinished))?;
        fs::rename(&unfinished, path).map_err(FileError::at(path))
    }

    /// The names of a folder's entries.
    pub(super) fn names(&self, folder: &Path) -> Result<Vec<String>, FileError> {
        let entries =
            fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let entries = entries.map_err(FileError::at(folder))?;
        let names = entries.iter().map(fs::DirEntry::file_name);
        Ok(names.filter_map(|name| name.into_string().ok()).collect())
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: &Path) -> Result<(), FileError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::at(path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a file. Only a regular one of at most [`MAX_FILE_BYTES`] is: what else may have its name,
/// such as a pipe, could be waited for without end.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        check(&fs::symlink_metadata(path)?)?;
        let file = open(path)?;
        // It may be another one by now.
        check(&file.metadata()?)?;
        let mut bytes = Vec::new();
        let limit = MAX_FILE_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes)?;
        match bytes.len() <= MAX_FILE_BYTES {
            true => Ok(bytes),
            false => Err(unfit(TOO_LARGE)),
        }
    };
    read().map_err(FileError::at(path))
}

const TOO_LARGE: &str = "it is larger than 1 MiB";

fn check(found: &fs::Metadata) -> io::Result<()> {
    match (found.is_file(), found.len() <= MAX_FILE_BYTES as u64) {
        (true, true) => Ok(()),
        (true, false) => Err(unfit(TOO_LARGE)),
        (false, _) => Err(unfit("it is no regular file")),
    }
}

/// Opens a file for reading; neither waits for a pipe's other end nor follows a link.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;

    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).expect("flags of open are small numbers");
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<fs::File> {
    fs::File::open(path)
}

fn unfit(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
