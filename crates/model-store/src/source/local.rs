//! A file on this machine.

use std::fs::File;
use std::io::{self, Seek};
use std::path::PathBuf;

use super::ModelSource;
use crate::error::Error;
use crate::gguf;
use crate::progress::Phase;
use crate::staging::{CopyError, Staging};

/// A model file given by path; used where it is.
#[derive(Debug, Clone)]
pub struct LocalSource {
    path: PathBuf,
    file_name: String,
}

impl LocalSource {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let file_name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self { path, file_name }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::LocalFile {
            path: self.path.clone(),
            source,
        }
    }

    /// Opens the file, once it is known to be a model.
    fn open(&self) -> Result<File, Error> {
        let unreadable = |source| self.unreadable(source);
        // Asked before opening: opening a pipe would wait for its writer.
        if !self.path.metadata().map_err(unreadable)?.is_file() {
            return Err(unreadable(io::Error::other("it is not a regular file")));
        }
        let mut file = File::open(&self.path).map_err(unreadable)?;
        if gguf::has_magic(&file).map_err(unreadable)? {
            file.rewind().map_err(unreadable)?;
            Ok(file)
        } else {
            Err(Error::NotGguf {
                path: self.path.clone(),
            })
        }
    }
}

impl ModelSource for LocalSource {
    fn origin(&self) -> String {
        self.path.display().to_string()
    }

    fn file_name(&self) -> &str {
        &self.file_name
    }

    fn locate(&self) -> Result<Option<PathBuf>, Error> {
        self.open()?;
        std::path::absolute(&self.path)
            .map(Some)
            .map_err(|source| self.unreadable(source))
    }

    fn fetch(&self, staging: &mut Staging<'_>) -> Result<(), Error> {
        let mut file = self.open()?;
        match staging.copy_from(Phase::Fetching, &mut file) {
            Ok(_) => Ok(()),
            Err(CopyError::Read(source)) => Err(self.unreadable(source)),
            Err(CopyError::Keep(error)) => Err(error),
        }
    }
}
