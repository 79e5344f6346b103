#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod canary;
#[cfg(feature = "command")]
pub mod command;
mod config;
#[cfg(any(feature = "native", feature = "mocker"))]
pub mod engines;
mod error;
mod handle;
mod leaving;
mod own_card;
#[cfg(test)]
mod sample;
mod standing;
#[cfg(feature = "status")]
pub mod status;
mod stillness;
mod supervisor;
mod worker;

pub use config::WorkerConfig;
pub use error::{ConfigError, StartError};
pub use handle::WorkerHandle;
pub use leaving::Leaving;
pub use worker::{Worker, WorkerSpec};
