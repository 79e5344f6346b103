use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use forebay_tokens::WorkerId;

use super::super::record;
use crate::names::EndpointId;

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
        self.root.join("leases").join(format!("{lease:016x}"))
    }

    /// Puts a file in its place whole, so that nobody reads half of it. One writer, one `writer`.
    pub(super) fn write(&self, path: &Path, bytes: &[u8], writer: u64) -> Result<(), FileError> {
        self.check()?;
        let folder = path.parent().unwrap_or(&self.root);
        let unfinished = folder.join(format!(".{writer:016x}"));
        fs::create_dir_all(folder).map_err(FileError::at(folder))?;
        fs::write(&unfinished, bytes).map_err(FileError::at(&unfinished))?;
        fs::rename(&unfinished, path).map_err(FileError::at(path))
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

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::at(path))
}
