use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::Engine;
use forebay_engine::remote::{KvUpdate, RemoteEngine, follow_kv_events};
use forebay_observability::ErrorChain;
use forebay_router::WorkerRank;
use forebay_runtime::{
    EndpointId, Instance, InstanceEvent, Planes, TaskHandle, TaskKind, Tasks, Watch,
};
use forebay_tokens::{DpRank, WorkerId};
use futures::StreamExt as _;
use futures::stream::{self, AbortHandle, BoxStream, SelectAll};
use tokio::time::sleep;
use tracing::{info, warn};

use super::WorkerPool;

/// The wait before discovery is asked again, where it does not answer or does not go on.
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
    /// Whose cache is known.
    ranks: HashSet<DpRank>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            match self.planes.discovery.watch(&self.endpoint).await {
                Ok(watch) => self.watch(watch).await,
                Err(error) => {
                    warn!(error = %ErrorChain(&error), "workers cannot be discovered");
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Follows for as long as discovery goes on telling.
    async fn watch(&mut self, mut watch: Watch) {
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
            InstanceEvent::Removed(worker) | InstanceEvent::Expired(worker) => self.remove(worker),
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
        let followed = Followed {
            instance,
            events,
            ranks: HashSet::new(),
        };
        self.workers.insert(worker, followed);
    }

    fn remove(&mut self, worker: WorkerId) {
        if let Some(followed) = self.workers.remove(&worker) {
            followed.events.abort();
            self.pool.remove(worker);
            info!(worker = worker.0, model = self.model, "worker left");
        }
    }

    fn apply(&mut self, worker: WorkerId, update: KvUpdate) {
        let (rank, events) = match update {
            KvUpdate::Reset { rank, events } => {
                let followed = self.workers.get_mut(&worker);
                if followed.is_some_and(|followed| !followed.ranks.insert(rank)) {
                    self.pool.count_kv_reset();
                }
                self.pool.forget_blocks(WorkerRank::new(worker, rank));
                (rank, events)
            }
            KvUpdate::Changes { rank, events } => (rank, events),
        };
        self.pool.apply(WorkerRank::new(worker, rank), &events);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use forebay_engine::remote::{WorkerCard, engine_endpoint};
    use forebay_engine::{Capabilities, EngineInfo};
    use forebay_observability::Registry;
    use forebay_router::RouterConfig;
    use forebay_runtime::{Discovery, PlaneError, Registration};
    use forebay_tokens::BlockSize;
    use futures::FutureExt as _;
    use futures::future::{self, BoxFuture};

    use super::*;

    const WORKER: WorkerId = WorkerId(1);

    fn model() -> EngineInfo {
        EngineInfo {
            model: "model".into(),
            capabilities: Capabilities::GENERATE | Capabilities::KV_EVENTS,
            context_length: 64,
            vocabulary_size: 2,
            block_size: BlockSize::new(16).unwrap(),
            kv_blocks: 8,
            eos_token_ids: vec![],
            data_parallel_ranks: 2,
        }
    }

    fn follower(planes: Planes) -> Follower {
        Follower {
            pool: WorkerPool::new(model(), &RouterConfig::default()).unwrap(),
            model: "model".into(),
            endpoint: engine_endpoint("test").unwrap(),
            planes,
            tasks: Tasks::new(&Registry::new()),
            workers: HashMap::new(),
            updates: SelectAll::new(),
        }
    }

    /// Its watches end as soon as they begin.
    #[derive(Default)]
    struct Brief {
        watches: AtomicU32,
    }

    impl Discovery for Brief {
        fn register(
            &self,
            _: Instance,
        ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
            future::pending().boxed()
        }

        fn list<'a>(
            &'a self,
            _: &'a EndpointId,
        ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
            future::ready(Ok(vec![])).boxed()
        }

        fn watch<'a>(&'a self, _: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
            let watches = self.watches.fetch_add(1, Ordering::Relaxed);
            assert!(watches < 100, "it spins");
            future::ready(Ok(stream::empty().boxed())).boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_is_begun_anew_after_a_while() {
        let discovery = Arc::new(Brief::default());
        let follower = follower(Planes {
            discovery: discovery.clone(),
            ..Planes::in_process()
        });
        let following = tokio::time::timeout(RETRY * 5 / 2, follower.run());
        assert!(following.await.is_err(), "it goes on");
        assert_eq!(discovery.watches.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_snapshot_that_is_not_a_rank_s_first_is_a_reset() {
        let mut follower = follower(Planes::in_process());
        let card = WorkerCard::new("model", model());
        let instance = Instance {
            endpoint: follower.endpoint.clone(),
            worker: WORKER,
            address: "nowhere".into(),
            card: card.encode(),
        };
        let reset = |rank| KvUpdate::Reset {
            rank: DpRank(rank),
            events: vec![],
        };
        follower.put(instance.clone());
        for (rank, resets) in [(0, 0), (1, 0), (0, 1), (0, 2), (1, 3)] {
            follower.apply(WORKER, reset(rank));
            assert_eq!(follower.pool.kv_resets(), resets, "rank {rank}");
        }
        // A worker that went and came back is told anew.
        follower.remove(WORKER);
        follower.put(instance);
        follower.apply(WORKER, reset(0));
        assert_eq!(follower.pool.kv_resets(), 3);
    }
}
