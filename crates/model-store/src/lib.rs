#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
pub mod catalog;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod digest;
mod error;
mod gguf;
mod model_ref;
mod progress;
mod source;
mod staging;
mod store;

pub use catalog::CatalogModel;
pub use config::{HubConfig, PipConfig, Secret, StoreConfig};
pub use digest::{ParseDigestError, Sha256Digest};
pub use error::{Error, RefError};
pub use model_ref::{HubRef, ModelRef, PypiRef};
pub use progress::{Phase, Progress, TerminalProgress};
#[cfg(feature = "hf")]
pub use source::HubSource;
pub use source::{LocalSource, MemorySource, ModelSource, PypiSource};
pub use staging::{CopyError, Staging};
pub use store::{ModelDetails, Pin, PulledModel, Store};
