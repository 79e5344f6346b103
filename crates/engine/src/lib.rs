#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod engine;
#[cfg(feature = "host")]
pub mod host;
mod info;
mod kv_events;
#[cfg(feature = "remote")]
pub mod remote;

pub use engine::{Engine, GenerateStream};
pub use info::{Capabilities, EngineInfo};
pub use kv_events::{KvEventBatch, KvEventStream};

// What an engine is asked and answers; defined once, for this trait and the wire.
pub use forebay_protocols::worker::{
    Control, EmbedOutput, EmbedRequest, EncodeOutput, EncodeRequest, FinishReason, GenerateOutput,
    GenerateRequest, Load, MediaOutput, MediaRequest, ScoreOutput, ScoreRequest,
};
pub use forebay_protocols::{Error, ErrorClass};
