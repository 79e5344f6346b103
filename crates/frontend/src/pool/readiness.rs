use std::sync::Arc;

use forebay_runtime::{Condition, Health};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::models::{ModelRegistry, any_change};

/// Keeps the process's readiness to whether some model has a worker that takes requests: a frontend
/// that can answer for one model is not taken away because another one lacks its workers.
#[derive(Debug)]
pub(crate) struct Readiness {
    models: ModelRegistry,
    metrics: Arc<Metrics>,
    changes: watch::Receiver<usize>,
    condition: Condition,
}

impl Readiness {
    /// Of these models, as far as they are known by now.
    pub(crate) fn new(models: ModelRegistry, metrics: Arc<Metrics>, health: &Health) -> Self {
        let readiness = Self {
            changes: models.changes(),
            models,
            metrics,
            condition: health.condition("workers", ""),
        };
        readiness.look();
        readiness
    }

    /// Follows the models and their workers for ever.
    pub(crate) async fn follow(mut self) {
        loop {
            let pools = self.models.served();
            let mut ready: Vec<_> = pools.iter().map(|model| model.pool().ready()).collect();
            // What happened before they were asked for counts.
            self.look();
            any_change(&mut ready, &mut self.changes).await;
        }
    }

    fn look(&self) {
        let models = self.models.served();
        for model in &models {
            // Its series are there before its first request.
            self.metrics.of_model(model.name());
        }
        let mut names: Vec<_> = models.iter().map(|model| model.name()).collect();
        names.dedup();
        self.metrics.retain(&names);
        if models.iter().any(|model| model.pool().ready_workers() > 0) {
            return self.condition.set_ready();
        }
        let unreached = self.models.unreached();
        let mut reasons = match (&*names, &**unreached) {
            ([], []) => vec!["no worker has come yet".to_owned()],
            ([], _) => Vec::new(),
            (names, _) => vec![format!("no worker for {}", names.join(", "))],
        };
        reasons.extend_from_slice(&unreached);
        self.condition.set_not_ready(reasons.join("; "));
    }
}
