use std::sync::Arc;
use std::time::Duration;

use forebay_observability::{Gauge, Registry};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::Context;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::answering::cancelled;
use crate::config::Limits;
use crate::models::ModelRegistry;
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

    /// Waits until some version of a model has a worker: the request is not prepared for one yet.
    /// Gives its place, in which it waits on if that worker leaves again.
    ///
    /// # Errors
    ///
    /// `CapacityExhausted` if too many wait already, `Unavailable` if none comes in time,
    /// `NotFound` if the model will not come, and whatever ends the request meanwhile.
    pub(crate) async fn for_model(
        &self,
        models: &ModelRegistry,
        name: &str,
        context: &Context,
    ) -> Result<Arc<WaitingPlace>, Error> {
        let place = self.enter()?;
        tokio::select! {
            there = place.in_time(models.has_worker(name)) => there??,
            cause = context.killed() => return Err(cancelled(cause)),
        }
        Ok(Arc::new(place))
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
            until: Instant::now() + self.time,
            _permit: permit,
        })
    }
}

/// The place of a request some of whose choices wait for workers: for so long in all, whichever
/// version of its model it waits for. Whoever drops it gives it back.
#[derive(Debug)]
pub(crate) struct WaitingPlace {
    waiting: Gauge,
    time: Duration,
    until: Instant,
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
        self.in_time(placed).await
    }

    async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        let waited = tokio::time::timeout_at(self.until, wait).await;
        waited.map_err(|_| {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::FrontendConfig;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_for_so_long_in_all() {
        let limits = FrontendConfig::default().limits().unwrap();
        let place = Waiting::new(&limits, &Registry::new()).enter().unwrap();
        let begun = Instant::now();
        let there = place.in_time(tokio::time::sleep(limits.worker_wait / 2));
        there.await.unwrap();
        // That worker went again, or was of another version.
        let error = place.in_time(pending::<()>()).await.unwrap_err();
        assert_eq!(error.reason, "no_worker_ready");
        assert_eq!(begun.elapsed(), limits.worker_wait);
    }
}
