#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod choice;
mod plan;
mod request;
mod timing;
mod violation;

pub use choice::Finish;
pub use plan::Plan;
pub use request::{AttemptId, Command, Outcome, Request, Step};
pub use timing::Timing;
