//! Engines of this machine for workers to put on the planes: `native` ones and `mocker`s, each by
//! the cargo feature of that name.
//!
//! An [`EnginesSpec`] says what they are. What comes of it are [`Engines`]: the engines, the card
//! that their workers have in common, and the artefacts that the card refers to.

mod artefacts;
mod config;
mod error;
mod fetch;
#[cfg(feature = "mocker")]
mod mockers;
#[cfg(feature = "native")]
mod native;
mod spec;

pub use config::{EngineKind, EnginesConfig, SamplingConfig};
pub use error::Error;
pub use fetch::{pull, store};
pub use spec::{DEFAULT_MODEL, Engines, EnginesSpec};
