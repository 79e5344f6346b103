#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod config;
mod error;
mod in_progress;
mod load;
mod new_sequence;
mod scheduler;
mod sequence;
mod waiting;

pub use batch::{Batch, BatchItem, Finish, Progress, Sampled};
pub use config::SchedulerConfig;
pub use error::{ConfigError, Rejected, Rejection};
pub use load::Load;
pub use new_sequence::{NewSequence, Priority, SequenceId};
pub use scheduler::Scheduler;
pub use sequence::Sequence;
