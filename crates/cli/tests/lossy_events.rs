//! Routers over an event plane that loses one event in ten.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_engine::remote::{
    KvRepairs, KvState, KvUpdate, RemoteEngine, WorkerCard, engine_endpoint,
};
use forebay_engine::{Engine, GenerateRequest};
use forebay_frontend::{PooledWorker, Process, WorkerPool};
use forebay_mock_engine::{MockEngine, MockerConfig};
use forebay_observability::Registry;
use forebay_protocols::worker::StopConditions;
use forebay_router::RouterConfig;
use forebay_runtime::{
    EventPlane, EventStream, Health, Instance, MemoryDiscovery, NatsConfig, NatsConnection,
    NatsEvents, PlaneError, Planes, Publisher, Tasks, TcpConfig, TcpPlane, Topic,
};
use forebay_tokens::{ContentKey, KvEvent, RoutingHash, Tier, WorkerId};
use forebay_worker::{Worker, WorkerConfig, WorkerSpec};
use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{sleep, timeout};

/// Ten times what it takes, but for one case in ten thousand.
const DEADLINE: Duration = Duration::from_secs(10);

/// Loses one event in ten, and whoever publishes or subscribes does not learn of it.
struct Lossy {
    inner: Arc<dyn EventPlane>,
    random: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl EventPlane for Lossy {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        self.inner.publisher(topic, publisher)
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>> {
        async {
            let (random, lost) = (self.random.clone(), self.lost.clone());
            let events = self.inner.subscribe(topic, publisher).await?;
            let arrives = move || {
                let number = random.fetch_add(1, Ordering::Relaxed);
                // Lehmer's generator, after its first values.
                let drawn = (number + 1000).wrapping_mul(0xda94_2042_e4dd_58b5) >> 32;
                let is_lost = drawn % 10 == 0;
                lost.fetch_add(u64::from(is_lost), Ordering::Relaxed);
                !is_lost
            };
            Ok(events.filter(move |_| future::ready(arrives())).boxed())
        }
        .boxed()
    }
}

/// Blocks, and how often each is there.
#[derive(Debug, Default, PartialEq)]
struct Held(BTreeMap<(Tier, RoutingHash), u32>);

impl Held {
    /// The blocks of an engine, as it tells them itself.
    async fn of(engine: &MockEngine) -> Self {
        let snapshot = engine.kv_events().unwrap().next().await.unwrap().unwrap();
        let mut held = Self::default();
        held.apply(&snapshot.events);
        held
    }

    fn apply(&mut self, events: &[KvEvent]) {
        for event in events {
            match event {
                KvEvent::Stored { tier, blocks, .. } => {
                    for hash in blocks {
                        *self.0.entry((*tier, *hash)).or_default() += 1;
                    }
                }
                KvEvent::Removed { tier, blocks, .. } => {
                    for hash in blocks {
                        let count = self.0.get_mut(&(*tier, *hash)).unwrap();
                        *count -= 1;
                        if *count == 0 {
                            self.0.remove(&(*tier, *hash));
                        }
                    }
                }
                KvEvent::Cleared { tier } => self.0.retain(|(of, _), _| of != tier),
            }
        }
    }
}

/// Follows a worker's KV events.
struct Follower {
    updates: BoxStream<'static, KvUpdate>,
    held: Held,
    is_exact: bool,
}

impl Follower {
    fn of(engine: &RemoteEngine, repairs: &KvRepairs) -> Self {
        Self {
            updates: engine.kv_updates(repairs),
            held: Held::default(),
            is_exact: false,
        }
    }

    async fn until(&mut self, truth: &Held) {
        while !self.is_exact || self.held != *truth {
            match self.updates.next().await.unwrap() {
                KvUpdate::Reset { events, .. } => {
                    self.held = Held::default();
                    self.held.apply(&events);
                }
                KvUpdate::Changes { events, .. } => self.held.apply(&events),
                KvUpdate::State(state) => self.is_exact = state != KvState::Repairing,
            }
        }
    }
}

async fn generate(engine: Arc<MockEngine>, number: u32) {
    let request = GenerateRequest {
        request_id: format!("request-{number}"),
        // A third of the prompts have a beginning in common.
        prompt_token_ids: (0..96)
            .map(|at| {
                if at < 32 {
                    number % 3
                } else {
                    number * 100 + at
                }
            })
            .collect(),
        stop: Some(StopConditions {
            max_tokens: Some(8),
            ignore_eos: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let outputs = engine.generate(request).await.unwrap();
    let outputs: Vec<_> = outputs.collect().await;
    assert!(outputs.iter().all(Result::is_ok));
}

#[tokio::test]
async fn every_router_knows_every_worker_s_cache_though_events_are_lost_in_process() {
    let planes = Planes::in_process();
    every_router_knows_every_worker_s_cache(planes.clone(), planes, &process()).await;
}

#[tokio::test]
async fn every_router_knows_every_worker_s_cache_though_events_are_lost_over_tcp() {
    let process = process();
    let (workers, routers) = (tcp(&process).await, tcp(&process).await);
    let discovery = Arc::new(MemoryDiscovery::new());
    let planes = |plane: TcpPlane| Planes {
        discovery: discovery.clone(),
        requests: Arc::new(plane.clone()),
        events: Arc::new(plane),
    };
    every_router_knows_every_worker_s_cache(planes(workers), planes(routers), &process).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_router_knows_every_worker_s_cache_though_events_are_lost_over_nats() {
    let server = forebay_testkit::NatsServer::start();
    let process = process();
    let config = NatsConfig {
        servers: vec![server.url()],
        ..NatsConfig::default()
    };
    let discovery = Arc::new(MemoryDiscovery::new());
    let planes = async || {
        let Process { tasks, metrics, .. } = &process;
        let connection = NatsConnection::connect(&config, tasks, metrics, &process.health);
        Planes {
            discovery: discovery.clone(),
            requests: Arc::new(tcp(&process).await),
            events: Arc::new(NatsEvents::new(&connection.await.unwrap(), tasks)),
        }
    };
    let (workers, routers) = (planes().await, planes().await);
    every_router_knows_every_worker_s_cache(workers, routers, &process).await;
}

fn process() -> Process {
    let metrics = Registry::new();
    Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    }
}

async fn tcp(process: &Process) -> TcpPlane {
    let config = TcpConfig::default();
    let plane = TcpPlane::bind(config, &process.tasks, &process.metrics, &process.health);
    plane.await.unwrap()
}

async fn every_router_knows_every_worker_s_cache(
    workers_on: Planes,
    on: Planes,
    process: &Process,
) {
    let tasks = &process.tasks;
    let lost = Arc::new(AtomicU64::new(0));
    let planes = Planes {
        events: Arc::new(Lossy {
            inner: on.events,
            random: Arc::default(),
            lost: lost.clone(),
        }),
        ..on
    };
    let config = MockerConfig {
        block_size_tokens: 16,
        kv_blocks: 64,
        speed: 0.0,
        ..Default::default()
    };
    let mut engines = BTreeMap::new();
    let mut workers = Vec::new();
    for id in (1..=4).map(WorkerId) {
        let key = ContentKey::new([7; 32]);
        let engine = MockEngine::start("mock", &config, 0, key, tasks).unwrap();
        let engine = Arc::new(engine);
        let spec = WorkerSpec {
            id,
            card: WorkerCard::new("mock", engine.info().clone()),
            artefacts: Arc::default(),
            engine: engine.clone(),
            condition: None,
        };
        let worker = Worker::start(&WorkerConfig::default(), spec, &workers_on, tasks).await;
        workers.push(worker.unwrap());
        engines.insert(id, engine);
    }
    let endpoint = engine_endpoint("forebay").unwrap();
    let info = engines[&WorkerId(1)].info().clone();
    let routers: Vec<_> = (0..3)
        .map(|_| {
            let pool = WorkerPool::new(info.clone(), &RouterConfig::default()).unwrap();
            pool.follow(&planes, endpoint.clone(), "mock", process);
            pool
        })
        .collect();
    let repairs = KvRepairs::default();
    let mut followers = Vec::new();
    for instance in planes.discovery.list(&endpoint).await.unwrap() {
        let engine = RemoteEngine::new(instance, &planes, tasks).unwrap();
        followers.push((engine.worker(), Follower::of(&engine, &repairs)));
    }

    // All follow before anything happens, so there is something to lose.
    let mut truths = truths_of(&engines).await;
    all_know(&routers, &mut followers, &truths).await;
    for number in 0..100 {
        future::join_all((engines.values()).map(|engine| generate(engine.clone(), number))).await;
    }
    truths = truths_of(&engines).await;
    assert!(truths.values().all(|held| held.0.len() > 30));
    all_know(&routers, &mut followers, &truths).await;
    assert!(lost.load(Ordering::Relaxed) > 0);
}

async fn truths_of(engines: &BTreeMap<WorkerId, Arc<MockEngine>>) -> BTreeMap<WorkerId, Held> {
    let mut truths = BTreeMap::new();
    for (worker, engine) in engines {
        truths.insert(*worker, Held::of(engine).await);
    }
    truths
}

/// Waits until all routers and followers know what the workers hold.
async fn all_know(
    routers: &[WorkerPool],
    followers: &mut [(WorkerId, Follower)],
    truths: &BTreeMap<WorkerId, Held>,
) {
    let known = followers
        .iter_mut()
        .map(|(worker, follower)| follower.until(&truths[worker]));
    let known = timeout(DEADLINE, future::join_all(known)).await;
    known.expect("a follower does not come to know what its worker holds");
    let is_exact = |worker: PooledWorker| {
        let is_exact = matches!(worker.kv, Some(KvState::Exact { .. }));
        is_exact && worker.known_blocks == truths[&worker.worker].0.len()
    };
    let are_exact = |router: &WorkerPool| {
        let workers = router.workers();
        workers.len() == truths.len() && workers.into_iter().all(is_exact)
    };
    let until_exact = async {
        while !routers.iter().all(are_exact) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let known = timeout(DEADLINE, until_exact).await;
    known.expect("a router does not come to know what the workers hold");
}
