#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod answer;
mod chunk;
mod clock;
mod config;
mod connection;
mod cpu;
mod error;
mod failure;
mod load;
mod plot;
mod probe;
mod progress;
mod prompt;
mod random;
mod record;
mod report;
mod request;
mod response;
mod run;
mod samples;
mod schedule;
mod session;
mod sse;
mod table;
mod target;
mod trace;
mod words;

pub use config::{Api, Arrival, BenchConfig, Length, Slo, Synthetic, Workload};
pub use error::Error;
pub use failure::{Failure, FailureClass};
pub use plot::plot;
pub use progress::{Phase, Progress};
pub use record::RequestRecord;
pub use report::{
    FailureCount, GeneratorReport, Latencies, Report, RequestCounts, RunInfo, ServerCpu,
    Throughput, Tokens,
};
pub use run::{Measured, run};
pub use samples::Distribution;
pub use target::Target;
pub use trace::{TRACE_BLOCK_TOKENS, Trace, TraceRequest};
