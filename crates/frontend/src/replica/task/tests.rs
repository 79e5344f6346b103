use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay_engine::{Engine, EngineInfo, Error, GenerateRequest, GenerateStream, Load};
use forebay_observability::Registry;
use forebay_router::RouterConfig;
use forebay_runtime::{
    Discovery, EventPlane, EventStream, Health, PeerState, PeerWatch, PlaneError, Planes,
    Publisher, RequestPlane, ResponseStream, Stamp, StreamHandler, StreamRequest, Tasks, Topic,
    Watch,
};
use forebay_tokens::{RequestId, RoutingSeed, WorkerId};
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::*;
use crate::pool::{Booking, WorkerPool};
use crate::sample;

const WORKER: WorkerId = WorkerId(1);

/// An event plane that loses one event in three.
struct Lossy(Arc<dyn EventPlane>);

struct LossyPublisher {
    publisher: Box<dyn Publisher>,
    published: AtomicU64,
}

impl EventPlane for Lossy {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        let publisher = self.0.publisher(topic, publisher);
        let lossy = publisher.map(|publisher| {
            let lossy = LossyPublisher {
                publisher: publisher?,
                published: AtomicU64::new(0),
            };
            Ok(Box::new(lossy) as Box<dyn Publisher>)
        });
        lossy.boxed()
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>> {
        self.0.subscribe(topic, publisher)
    }
}

impl Publisher for LossyPublisher {
    fn epoch(&self) -> u64 {
        self.publisher.epoch()
    }

    fn publish(&mut self, payload: bytes::Bytes) -> Stamp {
        match self.published.fetch_add(1, Ordering::Relaxed) % 3 {
            1 => Stamp {
                publisher: WORKER,
                epoch: self.epoch(),
                sequence: 0,
            },
            _ => self.publisher.publish(payload),
        }
    }
}

/// A discovery where nobody can register while it is away.
struct Away {
    discovery: Arc<dyn Discovery>,
    is_away: AtomicBool,
}

impl Discovery for Away {
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        match self.is_away.load(Ordering::Relaxed) {
            true => future::ready(Err(PlaneError::Unreachable("away".into()))).boxed(),
            false => self.discovery.register(instance),
        }
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        self.discovery.list(endpoint)
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        self.discovery.watch(endpoint)
    }
}

/// A request plane whose peers are all in one state.
struct Peers {
    requests: Arc<dyn RequestPlane>,
    state: watch::Receiver<PeerState>,
}

impl RequestPlane for Peers {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        self.requests.serve(endpoint, worker, handler)
    }

    fn open(&self, address: &str, request: StreamRequest) -> ResponseStream {
        self.requests.open(address, request)
    }

    fn peer(&self, _: &str) -> PeerWatch {
        let states = stream::unfold(
            (self.state.clone(), true),
            |(mut state, is_first)| async move {
                if !is_first {
                    state.changed().await.ok()?;
                }
                let now = *state.borrow_and_update();
                Some((now, (state, false)))
            },
        );
        states.boxed()
    }

    fn confirm(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, RequestError>> {
        self.requests.confirm(instance)
    }
}

/// Takes requests and says nothing.
struct Silent(EngineInfo);

impl Engine for Silent {
    fn info(&self) -> &EngineInfo {
        &self.0
    }

    fn generate(&self, _: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        future::pending().boxed()
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        Load::default()
    }
}

/// A frontend's pool of one worker, among other frontends.
fn frontend(planes: &Planes) -> (WorkerPool, Process) {
    let metrics = Registry::new();
    let process = Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    };
    let (owner, books) = (Arc::new(Owner::telling()), SharedBooks::default());
    Replicas::start(planes, "test", owner.clone(), books.clone(), &process).unwrap();
    let model = EngineInfo {
        context_length: 4096,
        kv_blocks: 64,
        ..sample::engine_info("model")
    };
    let pool = WorkerPool::owned(model.clone(), &RouterConfig::default(), owner).unwrap();
    pool.add(WORKER, Arc::new(Silent(model))).unwrap();
    books.joined(WORKER, &pool);
    (pool, process)
}

/// What a frontend books for a prompt of so many tokens.
fn booked(frontend: &WorkerPool, tokens: u32) -> Booking {
    let prompt: Vec<u32> = (0..tokens).collect();
    let prompt = frontend.prompt(&prompt, RoutingSeed::default());
    frontend.choose(&prompt, None, &[]).unwrap().booking
}

/// Waits until two pools have the same in their books.
async fn until_equal(one: &WorkerPool, other: &WorkerPool) {
    let equal = async {
        while one.workers()[0].load != other.workers()[0].load {
            sleep(COLLECT / 2).await;
        }
    };
    let equal = timeout(Duration::from_secs(60), equal).await;
    assert!(equal.is_ok(), "{one:?}\n{other:?}");
}

#[tokio::test(start_paused = true)]
async fn what_gets_lost_is_made_up_for() {
    let in_process = Planes::in_process();
    let planes = Planes {
        events: Arc::new(Lossy(in_process.events.clone())),
        ..in_process
    };
    let (one, _process) = frontend(&planes);
    let (other, process) = frontend(&planes);
    let mut bookings = Vec::new();
    for n in 0..40 {
        bookings.push(booked(&one, n * 10 + 5));
        let nth = n as usize % bookings.len();
        match n % 4 {
            1 => bookings[nth].generated(20),
            3 => drop(bookings.swap_remove(nth)),
            _ => {}
        }
        sleep(COLLECT * (n % 3)).await;
    }
    assert!(one.workers()[0].load.requests > 10);
    until_equal(&one, &other).await;
    bookings.clear();
    until_equal(&one, &other).await;
    assert_eq!(other.workers()[0].load, Default::default());
    let metrics = process.metrics.encode();
    let first_alone = "forebay_frontend_replica_repairs_total 1";
    assert!(
        !metrics.lines().any(|line| line == first_alone),
        "nothing was lost"
    );
}

#[tokio::test(start_paused = true)]
async fn who_cannot_register_says_so_and_is_found_later() {
    let in_process = Planes::in_process();
    let away = Arc::new(Away {
        discovery: in_process.discovery.clone(),
        is_away: AtomicBool::new(true),
    });
    let planes = Planes {
        discovery: away.clone(),
        ..in_process
    };
    let (one, process) = frontend(&planes);
    let told = timeout(Duration::from_secs(60), process.health.amiss("replicas")).await;
    assert!(told.unwrap().contains("cannot register"));
    let booking = booked(&one, 40);

    away.is_away.store(false, Ordering::Relaxed);
    let (other, _process) = frontend(&planes);
    until_equal(&one, &other).await;
    assert_eq!(other.workers()[0].load.requests, 1);
    assert_eq!(process.health.report().degraded, []);
    drop(booking);
    until_equal(&one, &other).await;
}

#[tokio::test(start_paused = true)]
async fn who_drains_is_known_until_it_is_gone() {
    let planes = Planes::in_process();
    let (state, states) = watch::channel(PeerState::Reachable);
    let seen_by_other = Planes {
        requests: Arc::new(Peers {
            requests: planes.requests.clone(),
            state: states,
        }),
        ..planes.clone()
    };
    let (one, _process) = frontend(&planes);
    let (other, process) = frontend(&seen_by_other);
    let mut booking = booked(&one, 40);
    until_equal(&one, &other).await;

    state.send_replace(PeerState::Draining);
    // What happens to it is still heard, and what it still sends.
    booking.generated(1);
    until_equal(&one, &other).await;
    let _second = booked(&one, 80);
    until_equal(&one, &other).await;
    assert_eq!(other.workers()[0].load.requests, 2);
    let is_known = |line| process.metrics.encode().lines().any(|known| known == line);
    assert!(is_known("forebay_frontend_replicas_in_step 1"));

    state.send_replace(PeerState::Lost);
    let forgotten = async {
        while other.workers()[0].load != Default::default() {
            sleep(COLLECT).await;
        }
    };
    timeout(Duration::from_secs(60), forgotten).await.unwrap();
}
