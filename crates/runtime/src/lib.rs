#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cause;
mod config;
mod context;
mod health;
mod metrics;
mod outcome;
mod scope;
mod shutdown;
mod signal;
mod tasks;

pub use cause::CancelCause;
pub use config::ShutdownConfig;
pub use context::Context;
pub use health::{Condition, ConditionReport, Health, HealthReport};
pub use outcome::{Outcome, TaskEnd};
pub use scope::{CancelScope, KillGuard};
pub use shutdown::{Shutdown, ShutdownCause, ShutdownReport};
pub use signal::{Signal, signals};
pub use tasks::{BlockingError, RunningTask, TaskHandle, TaskKind, Tasks};
