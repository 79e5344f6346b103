#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod canary;
mod config;
mod error;
mod stillness;
mod supervisor;
mod worker;

pub use config::WorkerConfig;
pub use error::{ConfigError, StartError};
pub use worker::{Worker, WorkerSpec};
