#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod error;
mod gguf;
#[allow(unsafe_code)]
mod kernel;
mod kv_memory;
mod model;
#[cfg(any(test, feature = "test-model"))]
mod random_model;
mod runner;

pub use error::{KvError, LoadError, RunnerError, StepError};
pub use kernel::Kernel;
pub use kv_memory::{KvDtype, KvLayout, KvMemory};
pub use model::{GgufMetadata, Model, ModelShape, TokenizerMetadata};
#[cfg(any(test, feature = "test-model"))]
pub use random_model::random_gguf;
pub use runner::{Logits, LogitsWanted, Runner, RunnerOptions, SequenceStep};
