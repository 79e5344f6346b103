//! The workers of a model, and the choice among them.

mod booking;
mod counts;
mod follower;
mod kv_feeds;
mod metrics;
mod prompt;
mod readiness;
mod repair_counts;
mod worker_pool;

pub use worker_pool::{PooledWorker, WorkerPool};

pub(crate) use booking::Booking;
pub(crate) use counts::PastCounts;
pub(crate) use kv_feeds::KvFeeds;
pub(crate) use metrics::PoolCollector;
pub(crate) use prompt::RoutedPrompt;
pub(crate) use readiness::Readiness;
pub(crate) use worker_pool::{Place, Placed};
