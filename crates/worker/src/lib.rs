#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod canary;
mod config;
mod error;
mod supervisor;
mod worker;

pub use config::WorkerConfig;
pub use error::StartError;
pub use worker::{Worker, WorkerSpec};
