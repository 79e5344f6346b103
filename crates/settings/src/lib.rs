#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod args;
mod config;
mod error;
mod flag;
mod layer;
mod leaf;
mod settings;

pub use args::SettingsArgs;
pub use error::Error;
pub use figment::value::Value;
pub use flag::Flag;
pub use settings::Settings;
