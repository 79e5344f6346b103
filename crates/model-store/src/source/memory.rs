//! Bytes in memory.

use super::ModelSource;
use crate::error::Error;
use crate::progress::Phase;
use crate::staging::{CopyError, Staging};

/// A model made of given bytes: for tests, and for models that a program carries with it.
#[derive(Clone)]
pub struct MemorySource {
    file_name: String,
    bytes: Vec<u8>,
}

impl MemorySource {
    /// A model whose file in the cache is called `file_name` and holds `bytes`.
    pub fn new(file_name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            file_name: file_name.into(),
            bytes: bytes.into(),
        }
    }
}

impl ModelSource for MemorySource {
    fn origin(&self) -> String {
        format!("memory:{}", self.file_name)
    }

    fn file_name(&self) -> &str {
        &self.file_name
    }

    fn fetch(&self, staging: &mut Staging<'_>) -> Result<(), Error> {
        staging.announce(self.bytes.len() as u64, None)?;
        match staging.copy_from(Phase::Fetching, &mut self.bytes.as_slice()) {
            Ok(_) => Ok(()),
            Err(CopyError::Read(never)) => unreachable!("reading from memory failed: {never}"),
            Err(CopyError::Keep(error)) => Err(error),
        }
    }
}

impl std::fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySource")
            .field("file_name", &self.file_name)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}
