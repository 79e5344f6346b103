#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod api;
mod app;
mod body;
#[cfg(feature = "command")]
pub mod command;
mod config;
mod error;
mod generation;
mod metrics;
mod models;
mod pool;
mod record;
mod replica;
mod request_id;
mod routes;
#[cfg(test)]
mod sample;
mod server;

pub use config::FrontendConfig;
pub use error::Error;
pub use models::{ModelRegistry, SamplingDefaults, ServedModel};
pub use pool::{PooledWorker, WorkerPool};
pub use server::{Frontend, Process};
