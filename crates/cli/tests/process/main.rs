//! The `forebay` program as a process: what it says, what it holds, and what clients can do to it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod client;
mod connections;
mod files;
mod hostile;
mod server;
