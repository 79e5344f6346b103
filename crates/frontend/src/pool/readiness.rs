use std::future::pending;

use forebay_runtime::{Condition, Health};
use futures::future::select_all;
use tokio::sync::watch;

use super::WorkerPool;

/// Keeps the process's readiness to whether every model has a worker that takes requests.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// `None` if no workers come and go.
    condition: Option<Condition>,
    /// By the name of the model, how many workers it has.
    ready: Vec<(String, watch::Receiver<usize>)>,
}

impl Readiness {
    /// Of these pools, by the names of their models.
    pub(crate) fn new(pools: &[(String, WorkerPool)], health: &Health) -> Self {
        let changing = pools.iter().filter(|(_, pool)| !pool.is_fixed());
        let ready: Vec<_> = changing
            .map(|(name, pool)| (name.clone(), pool.ready()))
            .collect();
        let condition = (!ready.is_empty()).then(|| health.condition("workers", ""));
        let mut readiness = Self { condition, ready };
        readiness.look();
        readiness
    }

    /// Follows the workers for ever.
    pub(crate) async fn follow(mut self) {
        while !self.ready.is_empty() {
            let changes = self.ready.iter_mut();
            let changes = changes.map(|(_, ready)| Box::pin(ready.changed()));
            // The pools are there, and their senders with them.
            let _ = select_all(changes).await;
            self.look();
        }
        pending().await
    }

    fn look(&mut self) {
        let Some(condition) = &self.condition else {
            return;
        };
        let lacking = self.ready.iter_mut().filter_map(|(name, ready)| {
            let lacks = *ready.borrow_and_update() == 0;
            lacks.then_some(&**name)
        });
        let lacking: Vec<_> = lacking.collect();
        match &*lacking {
            [] => condition.set_ready(),
            lacking => condition.set_not_ready(format!("no worker for {}", lacking.join(", "))),
        }
    }
}
