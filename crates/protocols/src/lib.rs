#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod checked_request;
mod error;
pub mod openai;

/// What discovery keeps of an instance: the generated types of
/// `proto/forebay/discovery/v1/discovery.proto`, whose comments define every field.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod discovery {
    include!("generated/forebay.discovery.v1.rs");
}

/// What a client of an engine sends to a worker and gets back: the generated types of
/// `proto/forebay/worker/v1/worker.proto`, whose comments define every field.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod worker {
    include!("generated/forebay.worker.v1.rs");
}

/// What frontends that share workers tell each other: the generated types of
/// `proto/forebay/router/v1/router.proto`, whose comments define every field.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod router {
    include!("generated/forebay.router.v1.rs");
}

mod worker_error;
mod worker_kv_event;

pub use checked_request::{CheckedRequest, RequestLimits, SamplingRules, StopRules};
pub use error::{Error, ErrorClass};
pub use worker_kv_event::UnknownKvEvent;
