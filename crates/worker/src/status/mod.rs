//! What a worker's process tells and takes over HTTP: how it is, who it is, and an operator's
//! control of its engines and cards.

mod card_change;
mod config;
mod metadata;
mod outcomes;
mod routes;
mod same_site;
mod server;

pub use config::StatusConfig;
pub use server::{StatusProcess, StatusServer};
