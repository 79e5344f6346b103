#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod grid;
mod iteration;
mod perf_model;
mod polynomial;
mod profile;

pub use error::Error;
pub use grid::Grid;
pub use iteration::Iteration;
pub use perf_model::PerfModel;
pub use polynomial::{Coefficients, Polynomial};
pub use profile::Profile;
