//! What a worker's process tells of its engines, looked at when it is scraped.

mod kv;
mod load;

use std::sync::{Arc, OnceLock};

use forebay_observability::Registry;
use prometheus_client::registry::Unit;

use self::kv::KvCollector;
use self::load::LoadCollector;
use crate::WorkerHandle;

/// The workers of the process, once they have started.
pub(super) type Workers = Arc<OnceLock<Vec<WorkerHandle>>>;

/// Registers all of it.
pub(super) fn register(registry: &Registry, workers: &Workers) {
    registry.register_collector(LoadCollector::new(workers.clone()));
    registry.register_collector(KvCollector::new(workers.clone()));
}

/// The unit of that name; none, if it is empty.
fn unit(name: &str) -> Option<Unit> {
    (!name.is_empty()).then(|| Unit::Other(name.to_owned()))
}
