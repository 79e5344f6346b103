//! Streams between a client process and a server process, over one connection at a time.

mod config;

pub use config::{Config, Mode, Role};
