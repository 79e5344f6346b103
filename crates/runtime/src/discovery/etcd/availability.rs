use std::sync::Arc;

use forebay_observability::ErrorChain;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::super::metrics::Metrics;
use super::access::EtcdError;
use crate::health::{Condition, Degradation, Health};

/// Whether etcd answers, as told in health, metrics and log: it does while none of those who talk
/// to it has seen it away.
#[derive(Clone)]
pub(super) struct Availability {
    shared: Arc<Shared>,
}

struct Shared {
    /// How many see it away.
    away: Mutex<usize>,
    /// Holds once it has answered.
    start: Condition,
    degradation: Degradation,
    metrics: Metrics,
}

/// One who sees etcd away, for as long as it lives.
pub(super) struct Away {
    availability: Availability,
}

impl Availability {
    /// It has not answered yet.
    pub(super) fn new(health: &Health, metrics: Metrics) -> Self {
        let reason = "etcd has not answered yet";
        let degradation = health.degradation("discovery");
        degradation.set(reason);
        Self {
            shared: Arc::new(Shared {
                away: Mutex::new(0),
                start: health.condition("discovery", reason),
                degradation,
                metrics,
            }),
        }
    }

    /// It answers for the first time.
    pub(super) fn begin(&self) {
        self.shared.metrics.connected.set(1);
        self.shared.degradation.clear();
        self.shared.start.set_ready();
    }

    /// It does not answer someone, for this reason.
    pub(super) fn away(&self, error: &EtcdError) -> Away {
        let mut away = self.shared.away.lock();
        *away += 1;
        if *away == 1 {
            warn!(error = %ErrorChain(error), "etcd is away; the last known workers stay");
            self.shared.metrics.connected.set(0);
            let reason = "etcd does not answer; the last known workers stay";
            self.shared.degradation.set(reason);
        }
        Away {
            availability: self.clone(),
        }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let shared = &self.availability.shared;
        let mut away = shared.away.lock();
        *away -= 1;
        if *away == 0 {
            info!("etcd is back");
            shared.metrics.connected.set(1);
            shared.degradation.clear();
        }
    }
}
