#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod config;
mod engine;
mod engine_core;
mod error;
mod gguf;
#[allow(unsafe_code)]
mod kernel;
mod kv_memory;
mod metrics;
mod model;
#[cfg(any(test, feature = "test-model"))]
mod random_model;
mod runner;
mod sampling;

pub use config::EngineConfig;
pub use engine::NativeEngine;
pub use engine_core::{EngineCore, KvBlock, StepReport};
pub use error::{KvError, LoadError, RunnerError, StartError, StepError};
pub use kernel::Kernel;
pub use kv_memory::{KvDtype, KvLayout, KvMemory};
pub use model::{GgufMetadata, Model, ModelShape, TokenizerMetadata};
#[cfg(any(test, feature = "test-model"))]
pub use random_model::random_gguf;
pub use runner::{Logits, LogitsWanted, Runner, RunnerOptions, SequenceStep};
