use std::time::Duration;

use forebay_observability::{Gauge, Registry};
use forebay_protocols::{Error, ErrorClass};
use tokio::sync::Semaphore;

use crate::config::Limits;
use crate::pool::{Place, Placed, RoutedPrompt, WorkerPool};

/// The requests that no worker can take yet: how many may wait, and for how long.
#[derive(Debug)]
pub(crate) struct Waiting {
    places: Semaphore,
    limit: usize,
    time: Duration,
    waiting: Gauge,
}

impl Waiting {
    pub(crate) fn new(limits: &Limits, registry: &Registry) -> Self {
        let registry = registry.component("frontend");
        let limit = limits.waiting_requests.min(Semaphore::MAX_PERMITS);
        let gauge = registry.gauge("waiting_limit", "Attempts that may wait for a worker");
        gauge.set(i64::try_from(limit).unwrap_or(i64::MAX));
        Self {
            places: Semaphore::new(limit),
            limit,
            time: limits.worker_wait,
            waiting: registry.gauge("waiting", "Attempts that wait for a worker"),
        }
    }

    /// Waits for a worker that may have the prompt, and books it there.
    ///
    /// # Errors
    ///
    /// `CapacityExhausted` if too many wait already, `Unavailable` if none comes in time.
    pub(super) async fn for_worker(
        &self,
        pool: &WorkerPool,
        prompt: &RoutedPrompt,
        max_tokens: Option<u32>,
        excluded: &[Place],
    ) -> Result<Placed, Error> {
        let Ok(_place) = self.places.try_acquire() else {
            let limit = self.limit;
            let message = format!("{limit} requests are waiting for a worker already");
            let error = Error::new(ErrorClass::CapacityExhausted, "too_many_waiting", message);
            return Err(error.with_retry_after(self.time));
        };
        let _counted = Counted::new(&self.waiting);
        let mut ready = pool.ready();
        let placed = async {
            loop {
                ready.mark_unchanged();
                if let Ok(placed) = pool.choose(prompt, max_tokens, excluded) {
                    return placed;
                }
                // The pool is there, and its sender with it.
                let _ = ready.changed().await;
            }
        };
        let placed = tokio::time::timeout(self.time, placed).await;
        placed.map_err(|_| {
            let message = "no worker is ready for this model";
            Error::new(ErrorClass::Unavailable, "no_worker_ready", message)
                .with_retry_after(self.time)
        })
    }
}

/// Counts one while it is there.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
