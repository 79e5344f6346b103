#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod buckets;
mod config;
mod error;
mod error_chain;
mod logs;
#[cfg(feature = "otlp")]
mod otlp;
mod process;
mod registry;
mod telemetry;
mod trace;

pub use buckets::Buckets;
pub use config::{BuildInfo, Colour, LogConfig, LogFormat, OtlpConfig, TelemetryConfig};
pub use error::Error;
pub use error_chain::ErrorChain;
pub use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
pub use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};
pub use registry::{METRICS_CONTENT_TYPE, Registry};
pub use telemetry::Telemetry;
pub use trace::{continue_trace, propagate_trace, request_span};
