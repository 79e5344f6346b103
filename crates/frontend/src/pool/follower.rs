use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::Engine;
use forebay_engine::remote::{KvUpdate, RemoteEngine, follow_kv_events};
use forebay_observability::ErrorChain;
use forebay_router::WorkerRank;
use forebay_runtime::{EndpointId, Instance, InstanceEvent, Planes, TaskHandle, TaskKind, Tasks};
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::stream::{self, AbortHandle, BoxStream, SelectAll};
use tokio::time::sleep;
use tracing::{info, warn};

use super::WorkerPool;

/// The wait before discovery is asked again, where it does not answer.
const RETRY: Duration = Duration::from_secs(1);

impl WorkerPool {
    /// Keeps the pool to the workers behind an endpoint that serve `model`: a task adds each that
    /// discovery names, removes each that it names no more, and takes their KV events. Requests of a
    /// worker that is removed go on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn follow(
        &self,
        planes: &Planes,
        endpoint: EndpointId,
        model: impl Into<String>,
        tasks: &Tasks,
    ) -> TaskHandle {
        let follower = Follower {
            pool: self.clone(),
            model: model.into(),
            endpoint,
            planes: planes.clone(),
            tasks: tasks.clone(),
            workers: HashMap::new(),
            updates: SelectAll::new(),
        };
        tasks.spawn(TaskKind::Background, "worker pool", follower.run())
    }
}

struct Follower {
    pool: WorkerPool,
    model: String,
    endpoint: EndpointId,
    planes: Planes,
    tasks: Tasks,
    workers: HashMap<WorkerId, Followed>,
    updates: SelectAll<BoxStream<'static, (WorkerId, KvUpdate)>>,
}

/// An instance whose worker is in the pool.
struct Followed {
    instance: Instance,
    /// Ends its KV events.
    events: AbortHandle,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let mut watch = match self.planes.discovery.watch(&self.endpoint).await {
                Ok(watch) => watch,
                Err(error) => {
                    warn!(error = %ErrorChain(&error), "workers cannot be discovered");
                    sleep(RETRY).await;
                    continue;
                }
            };
            loop {
                tokio::select! {
                    event = watch.next() => match event {
                        Some(event) => self.take(event),
                        None => break,
                    },
                    Some((worker, update)) = self.updates.next() => self.apply(worker, update),
                }
            }
        }
    }

    fn take(&mut self, event: InstanceEvent) {
        match event {
            InstanceEvent::Present(instances) => {
                let is_gone = |worker: &WorkerId| instances.iter().all(|i| i.worker != *worker);
                let gone = self.workers.keys().copied().filter(is_gone);
                for worker in gone.collect::<Vec<_>>() {
                    self.remove(worker);
                }
                for instance in instances {
                    self.put(instance);
                }
            }
            InstanceEvent::Put(instance) => self.put(instance),
            InstanceEvent::Removed(worker) => self.remove(worker),
        }
    }

    fn put(&mut self, instance: Instance) {
        let worker = instance.worker;
        if (self.workers.get(&worker)).is_some_and(|known| known.instance == instance) {
            return;
        }
        self.remove(worker);
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
        let engine: Arc<dyn Engine> = Arc::new(engine);
        if let Err(error) = self.pool.add(worker, engine.clone()) {
            warn!(worker = worker.0, model = self.model, %error, "worker not used");
            return;
        }
        info!(worker = worker.0, model = self.model, "worker joined");
        let updates = match self.pool.is_kv() {
            true => follow_kv_events(engine),
            false => stream::empty().boxed(),
        };
        let updates = updates.map(move |update| (worker, update));
        let (updates, events) = stream::abortable(updates);
        self.updates.push(updates.boxed());
        self.workers.insert(worker, Followed { instance, events });
    }

    fn remove(&mut self, worker: WorkerId) {
        if let Some(followed) = self.workers.remove(&worker) {
            followed.events.abort();
            self.pool.remove(worker);
            info!(worker = worker.0, model = self.model, "worker left");
        }
    }

    fn apply(&self, worker: WorkerId, update: KvUpdate) {
        let (rank, events) = match update {
            KvUpdate::Reset { rank, events } => {
                self.pool.forget_blocks(WorkerRank::new(worker, rank));
                (rank, events)
            }
            KvUpdate::Changes { rank, events } => (rank, events),
        };
        self.pool.apply(WorkerRank::new(worker, rank), &events);
    }
}
