use forebay_observability::{Counter, Gauge, Registry};

use super::SharedBooks;

/// What is told of the other frontends, under `forebay_frontend_`.
#[derive(Debug)]
pub(super) struct Metrics {
    replicas: Gauge,
    in_step: Gauge,
    bookings: Gauge,
    pub(super) repairs: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.component("frontend");
        Self {
            replicas: registry.gauge("replicas", "Other frontends that share the workers"),
            in_step: registry.gauge(
                "replicas_in_step",
                "Those of them whose bookings are known as of their last batch",
            ),
            bookings: registry.gauge(
                "replica_bookings",
                "Choices that other frontends have sent and not seen the end of",
            ),
            repairs: registry.counter(
                "replica_repairs",
                "Times that all bookings of another frontend were asked for",
            ),
        }
    }

    pub(super) fn look(&self, books: &SharedBooks) {
        let (replicas, in_step, bookings) = books.size();
        self.replicas.set(replicas as i64);
        self.in_step.set(in_step as i64);
        self.bookings.set(bookings as i64);
    }
}
