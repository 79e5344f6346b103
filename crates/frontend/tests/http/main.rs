//! The frontend as its clients see it: over real sockets, in front of an engine that follows a
//! script.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod chat;
mod client;
mod completions;
mod connections;
mod engine;
mod leaving;
mod lifecycle;
mod pools;
mod process;
mod refusals;
mod server;
mod streams;
