#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod engine;
mod shared;

pub use engine::MockEngine;

// What an engine is made with and what can be done to it.
pub use forebay_mocker::{ConfigError, Fault, MockerConfig, ScheduledFault};
