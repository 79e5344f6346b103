use std::sync::Arc;
use std::time::Duration;

use forebay_observability::{Gauge, Registry};
use forebay_protocols::{Error, ErrorClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::pool::{Place, Placed, RoutedPrompt, WorkerPool};

/// The requests that no worker can take yet: how many may wait, and for how long.
#[derive(Debug)]
pub(crate) struct Waiting {
    places: Arc<Semaphore>,
    limit: usize,
    time: Duration,
    waiting: Gauge,
}

impl Waiting {
    pub(crate) fn new(limits: &Limits, registry: &Registry) -> Self {
        let registry = registry.component("frontend");
        let limit = limits.waiting_requests.min(Semaphore::MAX_PERMITS);
        let gauge = registry.gauge("waiting_limit", "Requests that may wait for a worker");
        gauge.set(i64::try_from(limit).unwrap_or(i64::MAX));
        Self {
            places: Arc::new(Semaphore::new(limit)),
            limit,
            time: limits.worker_wait,
            waiting: registry.gauge("waiting", "Requests that wait for a worker"),
        }
    }

    /// Takes a place for a request.
    ///
    /// # Errors
    ///
    /// `CapacityExhausted` if too many wait already.
    pub(super) fn enter(&self) -> Result<WaitingPlace, Error> {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            let limit = self.limit;
            let message = format!("{limit} requests are waiting for a worker already");
            let error = Error::new(ErrorClass::CapacityExhausted, "too_many_waiting", message);
            return Err(error.with_retry_after(self.time));
        };
        self.waiting.inc();
        Ok(WaitingPlace {
            waiting: self.waiting.clone(),
            time: self.time,
            _permit: permit,
        })
    }
}

/// The place of a request some of whose choices wait for workers; whoever drops it gives it back.
#[derive(Debug)]
pub(super) struct WaitingPlace {
    waiting: Gauge,
    time: Duration,
    _permit: OwnedSemaphorePermit,
}

impl WaitingPlace {
    /// Waits for a worker that may have the prompt, and books it there.
    ///
    /// # Errors
    ///
    /// `Unavailable` if none comes in time.
    pub(super) async fn for_worker(
        &self,
        pool: &WorkerPool,
        prompt: &RoutedPrompt,
        max_tokens: Option<u32>,
        excluded: &[Place],
    ) -> Result<Placed, Error> {
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

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.waiting.dec();
    }
}
