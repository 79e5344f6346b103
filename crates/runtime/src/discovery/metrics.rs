use forebay_observability::{Counter, Gauge, Registry};

/// `forebay_discovery_*`.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    pub(super) connected: Gauge,
    pub(super) instances: Gauge,
    pub(super) watch_depth: Gauge,
    pub(super) renewals: Counter,
    #[cfg(feature = "etcd")]
    pub(super) losses: Counter,
    pub(super) resyncs: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.component("discovery");
        Self {
            connected: registry.gauge(
                "connected",
                "Whether what discovery stands on answers: 1 or 0",
            ),
            instances: registry.gauge(
                "instances",
                "Instances known to be there, of the endpoints that are watched",
            ),
            watch_depth: registry.gauge(
                "watch_depth",
                "Changes that the slowest watcher of the last endpoint that changed has not seen",
            ),
            renewals: registry.counter("lease_renewals", "Leases renewed in time"),
            #[cfg(feature = "etcd")]
            losses: registry.counter("leases_lost", "Leases that ended, and were claimed anew"),
            resyncs: registry.counter(
                "resyncs",
                "Times that everyone was listed anew because changes may have been missed",
            ),
        }
    }
}
