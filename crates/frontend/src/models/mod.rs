//! The models that a frontend serves.

mod catalogue;
mod expected;
mod follower;
mod registry;
mod served_model;
mod text;
mod version;
mod versions;

pub use registry::ModelRegistry;
pub(crate) use registry::{any_change, not_found};
pub use served_model::{SamplingDefaults, ServedModel};
