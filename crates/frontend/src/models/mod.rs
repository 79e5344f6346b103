//! The models that a frontend serves.

mod catalogue;
mod registry;
mod served_model;

pub use registry::ModelRegistry;
pub use served_model::{SamplingDefaults, ServedModel};
