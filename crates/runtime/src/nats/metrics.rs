use forebay_observability::{Counter, Gauge, Registry};

/// `forebay_nats_*`.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) connected: Gauge,
    pub(super) reconnects: Counter,
    pub(super) sent_bytes: Counter,
    pub(super) received_bytes: Counter,
    pub(super) events_dropped: Counter,
    pub(super) events_lost: Counter,
    pub(super) event_queue_depth: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.component("nats");
        Self {
            connected: registry.gauge("connected", "Whether the connection to NATS stands: 1 or 0"),
            reconnects: registry.counter(
                "reconnects",
                "How often the connection to NATS was lost and made again",
            ),
            sent_bytes: registry.counter("sent_bytes", "Payload that was handed to NATS"),
            received_bytes: registry.counter("received_bytes", "Payload that came from NATS"),
            events_dropped: registry.counter(
                "events_dropped",
                "Events of publishers here that were never sent, because the queue to NATS was full",
            ),
            events_lost: registry.counter(
                "events_lost",
                "Events that subscribers here missed, by the gaps in their numbers",
            ),
            event_queue_depth: registry.gauge(
                "event_queue_depth",
                "Messages of events that wait to be handed to NATS",
            ),
        }
    }
}
