#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod block;
mod config;
mod error;
mod event_log;
mod group;
mod group_spec;
mod pool;
mod stats;

pub use block::{CompleteBlock, MutableBlock, RegisteredBlock, WeakBlock};
pub use config::{GroupConfig, PoolConfig};
pub use error::{ConfigError, NotEnoughBlocks};
pub use group_spec::{GroupKind, GroupSpec, Retention};
pub use pool::{Acquired, BlockPool, Demand, PrefixMatch};
pub use stats::GroupStats;
