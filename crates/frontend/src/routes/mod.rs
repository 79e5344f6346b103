//! One function for each route.

mod asked;
mod generate;
mod models;
mod openapi;
mod process;

pub(crate) use generate::{chat_completions, completions};
pub(crate) use models::{get_model, list_models};
pub(crate) use openapi::openapi;
pub(crate) use process::{health, live, metrics, ready};
