//! Where models come from.

#[cfg(feature = "hf")]
mod hub;
mod local;
mod memory;
mod pypi;

use std::fmt;
use std::path::PathBuf;

#[cfg(feature = "hf")]
pub use hub::HubSource;
pub use local::LocalSource;
pub use memory::MemorySource;
pub use pypi::PypiSource;

use crate::error::Error;
use crate::staging::Staging;

/// A place that one model file can be had from.
///
/// The suite in the module `conformance` (behind the feature of that name) checks what an
/// implementation must do.
pub trait ModelSource: fmt::Debug + Send + Sync {
    /// The place, in words that [`ModelRef`](crate::ModelRef) reads if there are such.
    fn origin(&self) -> String;

    /// The name that the file gets in the cache: one path component, ending in `.gguf`.
    fn file_name(&self) -> &str;

    /// The checked file, if it already is on this machine and should be used where it is; such a
    /// file is never copied into the cache.
    ///
    /// # Errors
    /// The file should be there, and cannot be used.
    fn locate(&self) -> Result<Option<PathBuf>, Error> {
        Ok(None)
    }

    /// Brings the whole file, through [`Staging::copy_from`]. Asks [`Staging::check_cancelled`]
    /// wherever else it waits, and leaves nothing outside of `staging`.
    ///
    /// # Errors
    /// What the source names; errors of `staging` are passed on as they are.
    fn fetch(&self, staging: &mut Staging<'_>) -> Result<(), Error>;
}
