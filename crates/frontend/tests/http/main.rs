//! The frontend as its clients see it: over real sockets, in front of an engine that follows a
//! script.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod chat;
mod client;
mod completions;
mod connections;
mod deployment;
mod engine;
mod going_over;
mod leaving;
mod lifecycle;
mod models;
mod pools;
mod process;
mod refusals;
mod replicas;
mod server;
mod stops;
mod streams;
#[cfg(feature = "tcp")]
mod unreached;
