use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_engine::remote::{EngineHandler, KvPublisher, kv_topic};
use forebay_engine::{Capabilities, Engine, Error};
use forebay_observability::ErrorChain;
use forebay_runtime::{Condition, Instance, PlaneError, Planes, Registration};
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
    pub(crate) canaries: AtomicU64,
}

/// While others know the worker.
pub(crate) struct Present {
    registration: Box<dyn Registration>,
    publisher: KvPublisher,
}

impl Supervisor {
    /// Whether the engine answers.
    pub(crate) async fn canary(&self) -> Result<(), Error> {
        let number = self.canaries.fetch_add(1, Ordering::Relaxed);
        let id = format!("canary-{}-{number}", self.instance.worker);
        canary(&*self.engine, id, self.config.canary()).await
    }

    /// Makes the worker known; before that its KV events can be followed.
    pub(crate) async fn enter(&self) -> Result<Present, PlaneError> {
        let worker = self.instance.worker;
        let publisher = self.kv_publisher().await?;
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
    pub(crate) async fn run(self, mut present: Present, cancel: CancellationToken) {
        loop {
            let lost = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                error = self.engine_lost(&mut present.publisher) => Some(error),
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

    /// A new epoch of KV events, as the engine may have begun anew.
    async fn kv_publisher(&self) -> Result<KvPublisher, PlaneError> {
        let (endpoint, worker) = (&self.instance.endpoint, self.instance.worker);
        let topic = kv_topic(endpoint, worker);
        let publisher = self.planes.events.publisher(&topic, worker).await?;
        Ok(self.handler.kv_publisher(publisher))
    }

    /// Publishes KV events until the engine does not answer any more; gives how that showed.
    async fn engine_lost(&self, publisher: &mut KvPublisher) -> Error {
        let ended = Notify::new();
        tokio::select! {
            never = self.keep_publishing(publisher, &ended) => match never {},
            error = self.watch_engine(&ended) => error,
        }
    }

    /// Asks the engine when something is odd.
    async fn watch_engine(&self, ended: &Notify) -> Error {
        loop {
            tokio::select! {
                () = ended.notified() => {}
                () = self.handler.unavailable() => {}
            }
            if let Err(error) = self.canary().await {
                return error;
            }
            // It answers: what was odd is not looked into again at once.
            sleep(self.config.retry()).await;
        }
    }

    /// Publishes the engine's KV events, and says when they end.
    async fn keep_publishing(&self, publisher: &mut KvPublisher, ended: &Notify) -> Infallible {
        let capabilities = self.engine.info().capabilities;
        if !capabilities.contains(Capabilities::KV_EVENTS) {
            return pending().await;
        }
        loop {
            publisher.run().await;
            ended.notify_one();
            *publisher = loop {
                sleep(self.config.retry()).await;
                match self.kv_publisher().await {
                    Ok(next) => break next,
                    Err(error) => self.warn(&error, "kv events not published"),
                }
            };
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
            Err(error) => self.warn(&error, "worker not deregistered"),
        }
    }

    fn warn(&self, error: &PlaneError, message: &'static str) {
        let worker = self.instance.worker.0;
        warn!(worker, error = %ErrorChain(error), "{message}");
    }

    /// Waits for the engine, and makes the worker known again.
    async fn come_back(&self) -> Present {
        loop {
            sleep(self.config.retry()).await;
            if self.canary().await.is_err() {
                continue;
            }
            match self.enter().await {
                Ok(present) => return present,
                Err(error) => self.warn(&error, "worker not registered"),
            }
        }
    }
}
