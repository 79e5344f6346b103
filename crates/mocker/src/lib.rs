#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod answer;
mod config;
mod error;
mod fault;
mod mocker;
mod vocabulary;

pub use answer::Answer;
pub use config::MockerConfig;
pub use error::ConfigError;
pub use fault::{Fault, ScheduledFault};
pub use mocker::{Mocker, StepReport};
pub use vocabulary::{Vocabulary, one_token_words, vocabulary};
