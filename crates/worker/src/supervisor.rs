use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::remote::{EngineHandler, kv_topic, publish_kv_events};
use forebay_engine::{Capabilities, Engine, Error};
use forebay_observability::ErrorChain;
use forebay_runtime::{Condition, Instance, PlaneError, Planes, Publisher, Registration};
use futures::future::pending;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::canary::canary;
use crate::config::WorkerConfig;

/// What watches over a worker's engine, and makes it known while it answers.
pub(crate) struct Supervisor {
    pub(crate) config: WorkerConfig,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) handler: Arc<EngineHandler>,
    pub(crate) planes: Planes,
    pub(crate) condition: Option<Condition>,
    pub(crate) instance: Instance,
    /// How many were sent.
    pub(crate) canaries: u64,
}

/// While others know the worker.
pub(crate) struct Present {
    registration: Box<dyn Registration>,
    publisher: Box<dyn Publisher>,
}

impl Supervisor {
    /// Whether the engine answers.
    pub(crate) async fn canary(&mut self) -> Result<(), Error> {
        let id = format!("canary-{}-{}", self.instance.worker, self.canaries);
        self.canaries += 1;
        canary(&*self.engine, id, self.config.canary()).await
    }

    /// Makes the worker known. Its KV events begin a new epoch, as the engine may have begun anew.
    pub(crate) async fn enter(&self) -> Result<Present, PlaneError> {
        let worker = self.instance.worker;
        let topic = kv_topic(&self.instance.endpoint, worker);
        let publisher = self.planes.events.publisher(&topic, worker).await?;
        let registration = self
            .planes
            .discovery
            .register(self.instance.clone())
            .await?;
        if let Some(condition) = &self.condition {
            condition.set_ready();
        }
        info!(
            worker = worker.0,
            address = self.instance.address,
            "worker registered"
        );
        Ok(Present {
            registration,
            publisher,
        })
    }

    /// Runs until it is cancelled, and leaves no registration then.
    pub(crate) async fn run(mut self, mut present: Present, cancel: CancellationToken) {
        loop {
            let lost = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                error = self.engine_lost(&mut *present.publisher) => Some(error),
            };
            self.leave(present, lost.as_ref()).await;
            if lost.is_none() {
                return;
            }
            present = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                present = self.come_back() => present,
            };
        }
    }

    /// Publishes KV events until the engine does not answer any more; gives how that showed.
    async fn engine_lost(&mut self, publisher: &mut dyn Publisher) -> Error {
        let (engine, handler) = (self.engine.clone(), self.handler.clone());
        let retry = self.config.retry();
        let ended = Notify::new();
        let watch = async {
            loop {
                tokio::select! {
                    () = ended.notified() => {}
                    () = handler.unavailable() => {}
                }
                if let Err(error) = self.canary().await {
                    return error;
                }
                // It answers: what was odd is not looked into again at once.
                sleep(retry).await;
            }
        };
        tokio::select! {
            never = keep_publishing(&*engine, publisher, &ended, retry) => match never {},
            error = watch => error,
        }
    }

    /// Makes the worker unknown.
    async fn leave(&self, present: Present, lost: Option<&Error>) {
        let worker = self.instance.worker.0;
        if let Some(error) = lost {
            if let Some(condition) = &self.condition {
                condition.set_not_ready("the engine does not answer");
            }
            let diagnostic = error.diagnostic.as_deref();
            warn!(worker, %error, diagnostic, "engine lost");
        }
        match present.registration.deregister().await {
            Ok(()) => info!(worker, "worker deregistered"),
            Err(error) => warn!(worker, error = %ErrorChain(&error), "worker not deregistered"),
        }
    }

    /// Waits for the engine, and makes the worker known again.
    async fn come_back(&mut self) -> Present {
        loop {
            sleep(self.config.retry()).await;
            if self.canary().await.is_err() {
                continue;
            }
            match self.enter().await {
                Ok(present) => return present,
                Err(error) => warn!(
                    worker = self.instance.worker.0,
                    error = %ErrorChain(&error),
                    "worker not registered",
                ),
            }
        }
    }
}

/// Publishes an engine's KV events, and says when they end.
async fn keep_publishing(
    engine: &dyn Engine,
    publisher: &mut dyn Publisher,
    ended: &Notify,
    retry: Duration,
) -> Infallible {
    if !engine.info().capabilities.contains(Capabilities::KV_EVENTS) {
        return pending().await;
    }
    loop {
        publish_kv_events(engine, publisher).await;
        ended.notify_one();
        sleep(retry).await;
    }
}
