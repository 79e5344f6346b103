use std::collections::HashMap;
use std::sync::Arc;

use forebay_engine::remote::RemoteEngine;
use forebay_observability::Registry;
use forebay_runtime::members;
use forebay_runtime::{EndpointId, Instance, MemberEvent, Planes, TaskHandle, TaskKind, Tasks};
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use tracing::{info, warn};

use super::{KvFeeds, WorkerPool};
use crate::Process;

impl WorkerPool {
    /// Keeps the pool to the workers behind an endpoint that serve `model`: a task adds each that
    /// can be sent requests, removes each that cannot any more, and takes their KV events. Requests
    /// of a worker that is removed go on. Where models are not known before their workers are,
    /// [`ModelRegistry::follow`](crate::ModelRegistry::follow) is for both.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn follow(
        &self,
        planes: &Planes,
        endpoint: EndpointId,
        model: impl Into<String>,
        process: &Process,
    ) -> TaskHandle {
        let follower = Follower {
            pool: self.clone(),
            model: model.into(),
            planes: planes.clone(),
            tasks: process.tasks.clone(),
            registry: process.metrics.clone(),
            workers: HashMap::new(),
            feeds: KvFeeds::default(),
        };
        let (tasks, task) = (&process.tasks, follower.run(endpoint));
        // Requests that go on through a shutdown may need workers that come meanwhile.
        tasks.spawn(TaskKind::Critical, "worker pool", task)
    }
}

struct Follower {
    pool: WorkerPool,
    model: String,
    planes: Planes,
    tasks: Tasks,
    registry: Registry,
    workers: HashMap<WorkerId, (Instance, Arc<RemoteEngine>)>,
    feeds: KvFeeds,
}

impl Follower {
    async fn run(mut self, endpoint: EndpointId) {
        let mut members = members(&self.planes, endpoint, &self.registry);
        loop {
            tokio::select! {
                Some(event) = members.next() => match event {
                    MemberEvent::Up(instance) | MemberEvent::Changed(instance) => self.up(instance),
                    MemberEvent::Down(worker, _) => self.down(worker),
                    MemberEvent::Unreached(..) | MemberEvent::UnreachedNoMore(_) => {}
                },
                never = self.feeds.run() => match never {},
            }
        }
    }

    fn up(&mut self, instance: Instance) {
        let worker = instance.worker;
        if let Some((known, engine)) = self.workers.get_mut(&worker)
            && known.address == instance.address
            && engine.take_card(instance.card.clone()).is_ok()
        {
            *known = instance;
            return;
        }
        self.down(worker);
        match RemoteEngine::new(instance.clone(), &self.planes, &self.tasks) {
            Ok(engine) if engine.model() == self.model => self.add(instance, engine),
            // It is for another pool.
            Ok(_) => {}
            Err(error) => {
                let diagnostic = error.diagnostic.as_deref();
                warn!(worker = worker.0, %error, diagnostic, "worker with a broken card");
            }
        }
    }

    fn add(&mut self, instance: Instance, engine: RemoteEngine) {
        let worker = instance.worker;
        let engine = Arc::new(engine);
        if let Err(error) = self.pool.add(worker, engine.clone()) {
            warn!(worker = worker.0, model = self.model, %error, "worker not used");
            return;
        }
        info!(worker = worker.0, model = self.model, "worker joined");
        self.feeds.add(worker, self.pool.clone(), &engine);
        self.workers.insert(worker, (instance, engine));
    }

    fn down(&mut self, worker: WorkerId) {
        if self.workers.remove(&worker).is_some() {
            self.feeds.remove(worker);
            self.pool.remove(worker);
            info!(worker = worker.0, model = self.model, "worker left");
        }
    }
}
