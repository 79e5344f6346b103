//! The choice of a worker.

mod cost;
mod decision;
mod draws;
mod mode;

pub use cost::{Cost, CostUnit};
pub use decision::{Candidate, Decision, Eligibility};
pub use mode::Mode;

pub(crate) use cost::Pricing;
pub(crate) use draws::Draws;
