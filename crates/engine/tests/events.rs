//! What a worker's engine announces, on its way to those who follow.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_engine::host::KvBroadcast;
use forebay_engine::remote::{
    EngineHandler, KvPublisher, KvRepair, KvRepairs, KvState, KvUpdate, RemoteEngine,
    ReportPublisher, WorkerCard, engine_endpoint, kv_topic, report_topic,
};
use forebay_engine::{
    Capabilities, Engine, EngineInfo, Error, ErrorClass, GenerateRequest, GenerateStream,
    KvEventStream, Load,
};
use forebay_observability::Registry;
use forebay_protocols::worker::{KvEventBatch, LoadRequest, WorkerRequest, worker_request};
use forebay_runtime::{
    EventPlane, EventStream, Instance, PlaneError, Planes, Publisher, ResponseStream, Served,
    StreamHandler, StreamRequest, TaskKind, Tasks, Topic,
};
use forebay_tokens::{
    BlockSize, CacheGroup, DpRank, KvEvent, RequestId, RoutingHash, Tier, WorkerId,
};
use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio::time::timeout;

const WORKER: WorkerId = WorkerId(1);

/// Has KV events and a load, as a test decides.
struct Toy {
    info: EngineInfo,
    broadcast: Mutex<KvBroadcast>,
    load: Mutex<Load>,
    /// How often its load was looked at.
    looks: AtomicU32,
}

impl Engine for Toy {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, _: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        async { Ok(stream::pending().boxed()) }.boxed()
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        self.looks.fetch_add(1, Ordering::Relaxed);
        *self.load.lock()
    }

    fn kv_events(&self) -> Result<KvEventStream, Error> {
        // It is followed before it holds anything.
        Ok(self.broadcast.lock().subscribe(vec![]).into_stream())
    }
}

impl Toy {
    fn store(&self, hash: u64) {
        self.broadcast.lock().publish(vec![KvEvent::Stored {
            tier: Tier::G1,
            group: CacheGroup(0),
            parent: None,
            blocks: vec![RoutingHash(hash)],
        }]);
    }
}

/// Loses and changes what it is told to.
struct Lossy {
    inner: Arc<dyn EventPlane>,
    is_losing: Arc<AtomicBool>,
    /// Whether the next batch is said to be of rank 7.
    is_moving: Arc<AtomicBool>,
    /// Marks that arrived.
    marks: Arc<AtomicU32>,
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
            let (is_losing, marks) = (self.is_losing.clone(), self.marks.clone());
            let events = self.inner.subscribe(topic, publisher).await?;
            let arrives = move |payload: &Bytes| {
                let batch = KvEventBatch::decode(&payload[..]);
                let is_mark = batch.is_ok_and(|batch| batch.events.is_empty());
                marks.fetch_add(u32::from(is_mark), Ordering::Relaxed);
                !is_losing.load(Ordering::Relaxed)
            };
            let arrived = events.filter(move |event| {
                future::ready(event.as_ref().is_ok_and(|event| arrives(&event.payload)))
            });
            let is_moving = self.is_moving.clone();
            let moved = arrived.map(move |event| {
                let mut event = event?;
                let batch = KvEventBatch::decode(&event.payload[..]);
                if let Ok(mut batch) = batch
                    && !batch.events.is_empty()
                    && is_moving.swap(false, Ordering::Relaxed)
                {
                    batch.rank = 7;
                    event.payload = batch.encode_to_vec().into();
                }
                Ok(event)
            });
            Ok(moved.boxed())
        }
        .boxed()
    }
}

/// A handler that counts what it is asked, and fails as often as a test wants.
struct Counting {
    handler: Arc<EngineHandler>,
    to_fail: AtomicU32,
    syncs: AtomicU32,
    loads: AtomicU32,
}

impl StreamHandler for Counting {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let asked = WorkerRequest::decode(&request.first[..]).unwrap();
        match asked.operation {
            Some(worker_request::Operation::KvSync(_)) => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                let fail = |left: u32| left.checked_sub(1);
                let order = Ordering::Relaxed;
                if self.to_fail.fetch_update(order, order, fail).is_ok() {
                    return stream::iter([Ok(Bytes::from_static(b"\xff"))]).boxed();
                }
            }
            Some(worker_request::Operation::Load(LoadRequest {})) => {
                self.loads.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.handler.handle(request)
    }
}

/// A worker on planes, and who follows it.
struct Scene {
    toy: Arc<Toy>,
    handler: Arc<Counting>,
    planes: Planes,
    tasks: Tasks,
    is_losing: Arc<AtomicBool>,
    is_moving: Arc<AtomicBool>,
    marks: Arc<AtomicU32>,
    remote: RemoteEngine,
    _served: Box<dyn Served>,
}

impl Scene {
    async fn new() -> Self {
        let toy = Arc::new(Toy {
            info: EngineInfo {
                model: "toy".into(),
                capabilities: Capabilities::GENERATE | Capabilities::KV_EVENTS,
                context_length: 64,
                vocabulary_size: 64,
                block_size: BlockSize::new(16).unwrap(),
                kv_blocks: 9,
                eos_token_ids: vec![],
                data_parallel_ranks: 1,
            },
            broadcast: Mutex::new(KvBroadcast::new(DpRank(0))),
            load: Mutex::default(),
            looks: AtomicU32::new(0),
        });
        let (is_losing, is_moving, marks) = (Arc::default(), Arc::default(), Arc::default());
        let mut planes = Planes::in_process();
        planes.events = Arc::new(Lossy {
            inner: planes.events,
            is_losing: Arc::clone(&is_losing),
            is_moving: Arc::clone(&is_moving),
            marks: Arc::clone(&marks),
        });
        let tasks = Tasks::new(&Registry::new());
        let handler = Arc::new(Counting {
            handler: Arc::new(EngineHandler::new(toy.clone())),
            to_fail: AtomicU32::new(0),
            syncs: AtomicU32::new(0),
            loads: AtomicU32::new(0),
        });
        let endpoint = engine_endpoint("test").unwrap();
        let requests = &planes.requests;
        let served = requests.serve(&endpoint, WORKER, handler.clone()).await;
        let served = served.unwrap();
        let instance = Instance {
            endpoint,
            worker: WORKER,
            address: served.address().to_owned(),
            card: WorkerCard::new("toy", toy.info.clone()).encode(),
        };
        let remote = RemoteEngine::new(instance, &planes, &tasks).unwrap();
        Self {
            toy,
            handler,
            planes,
            tasks,
            is_losing,
            is_moving,
            marks,
            remote,
            _served: served,
        }
    }

    async fn kv_publisher(&self) -> KvPublisher {
        let topic = kv_topic(&engine_endpoint("test").unwrap(), WORKER);
        let publisher = self.planes.events.publisher(&topic, WORKER).await;
        (self.handler.handler).kv_publisher(publisher.unwrap(), &self.tasks)
    }

    /// Publishes the engine's KV events from now on.
    async fn publish_kv(&self) {
        let mut publisher = self.kv_publisher().await;
        self.tasks
            .spawn(TaskKind::Background, "publish", async move {
                publisher.run().await;
            });
    }

    async fn report_publisher(&self, card: watch::Receiver<Arc<WorkerCard>>) -> ReportPublisher {
        let topic = report_topic(&engine_endpoint("test").unwrap(), WORKER);
        let publisher = self.planes.events.publisher(&topic, WORKER).await;
        (self.handler.handler).report_publisher(publisher.unwrap(), card)
    }

    fn updates(&self) -> BoxStream<'static, KvUpdate> {
        self.remote.kv_updates(&KvRepairs::default())
    }
}

async fn next(updates: &mut BoxStream<'static, KvUpdate>) -> KvUpdate {
    let update = timeout(Duration::from_secs(60), updates.next()).await;
    update.unwrap().unwrap()
}

async fn until_exact(updates: &mut BoxStream<'static, KvUpdate>) -> (KvRepair, Vec<KvUpdate>) {
    let mut before = Vec::new();
    loop {
        match next(updates).await {
            KvUpdate::State(KvState::Exact { by, .. }) => return (by, before),
            update => before.push(update),
        }
    }
}

fn hashes(update: &KvUpdate) -> Vec<u64> {
    let events = match update {
        KvUpdate::Changes { events, .. } | KvUpdate::Reset { events, .. } => events,
        KvUpdate::State(_) => return vec![],
    };
    let blocks = events.iter().flat_map(|event| match event {
        KvEvent::Stored { blocks, .. } => blocks.iter().map(|hash| hash.0),
        other => panic!("{other:?}"),
    });
    blocks.collect()
}

#[tokio::test(start_paused = true)]
async fn a_last_event_that_is_lost_is_noticed_and_repaired_from_the_ring() {
    let scene = Scene::new().await;
    scene.publish_kv().await;
    let mut updates = scene.updates();
    assert_eq!(until_exact(&mut updates).await.0, KvRepair::Start);
    let asked = scene.handler.syncs.load(Ordering::Relaxed);

    scene.is_losing.store(true, Ordering::Relaxed);
    scene.toy.store(7);
    // Until the first mark after it is lost, too.
    let before = scene.marks.load(Ordering::Relaxed);
    while scene.marks.load(Ordering::Relaxed) == before {
        assert!(
            timeout(Duration::from_millis(10), updates.next())
                .await
                .is_err()
        );
    }
    scene.is_losing.store(false, Ordering::Relaxed);
    let (by, missed) = until_exact(&mut updates).await;
    assert_eq!(by, KvRepair::Range);
    assert_eq!(missed.iter().flat_map(hashes).collect::<Vec<_>>(), [7]);
    assert_eq!(scene.handler.syncs.load(Ordering::Relaxed), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_badly_or_not_yet_is_asked_again() {
    let scene = Scene::new().await;
    scene.handler.to_fail.store(2, Ordering::Relaxed);
    let mut updates = scene.updates();
    // Nobody publishes yet, so the third answer is none either.
    while scene.handler.syncs.load(Ordering::Relaxed) < 3 {
        assert!(
            timeout(Duration::from_millis(10), updates.next())
                .await
                .is_err()
        );
    }
    scene.publish_kv().await;
    assert_eq!(until_exact(&mut updates).await.0, KvRepair::Start);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_cannot_be_understood_is_not_asked_for_again() {
    let scene = Scene::new().await;
    scene.publish_kv().await;
    let mut updates = scene.updates();
    until_exact(&mut updates).await;

    scene.is_losing.store(true, Ordering::Relaxed);
    scene.toy.store(7);
    scene.handler.to_fail.store(1, Ordering::Relaxed);
    let before = scene.marks.load(Ordering::Relaxed);
    while scene.marks.load(Ordering::Relaxed) == before {
        let none = timeout(Duration::from_millis(10), updates.next()).await;
        assert!(none.is_err());
    }
    scene.is_losing.store(false, Ordering::Relaxed);
    let (by, told) = until_exact(&mut updates).await;
    assert_eq!(by, KvRepair::Digest);
    assert_eq!(told.iter().flat_map(hashes).collect::<Vec<_>>(), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_the_worker_does_not_have_is_not_followed() {
    let scene = Scene::new().await;
    scene.publish_kv().await;
    let mut updates = scene.updates();
    until_exact(&mut updates).await;

    scene.is_moving.store(true, Ordering::Relaxed);
    scene.toy.store(7);
    let (by, told) = until_exact(&mut updates).await;
    assert_eq!(by, KvRepair::Range);
    let of_rank = |update: &KvUpdate| match update {
        KvUpdate::Reset { rank, .. } | KvUpdate::Changes { rank, .. } => *rank == DpRank(0),
        KvUpdate::State(_) => true,
    };
    assert!(told.iter().all(of_rank), "{told:?}");
    assert_eq!(told.iter().flat_map(hashes).collect::<Vec<_>>(), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_new_publisher_is_a_new_epoch() {
    let scene = Scene::new().await;
    let mut first = scene.kv_publisher().await;
    let mut updates = scene.updates();
    let started = async {
        tokio::select! {
            error = first.run() => panic!("{error:?}"),
            exact = until_exact(&mut updates) => exact.0,
        }
    };
    assert_eq!(started.await, KvRepair::Start);
    drop(first);
    scene.publish_kv().await;
    let (by, before) = until_exact(&mut updates).await;
    assert_eq!(by, KvRepair::Snapshot);
    assert_eq!(before[0], KvUpdate::State(KvState::Repairing));
    let reset = KvUpdate::Reset {
        rank: DpRank(0),
        events: vec![],
    };
    assert_eq!(before[1..], [reset]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_kv_events_is_not_followed() {
    let scene = Scene::new().await;
    let mut info = scene.toy.info.clone();
    info.capabilities = Capabilities::GENERATE;
    let instance = Instance {
        endpoint: engine_endpoint("test").unwrap(),
        worker: WORKER,
        address: "nowhere".into(),
        card: WorkerCard::new("toy", info).encode(),
    };
    let remote = RemoteEngine::new(instance, &scene.planes, &scene.tasks).unwrap();
    let mut updates = remote.kv_updates(&KvRepairs::default());
    assert_eq!(updates.next().await, None);
    let error = remote.kv_events().err().unwrap();
    assert_eq!(error.class, ErrorClass::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_published_is_not_asked_for() {
    let scene = Scene::new().await;
    let (_card, card) = watch::channel(scene.remote.card());
    let mut publisher = scene.report_publisher(card).await;
    scene.remote.load();
    let publishing = async {
        tokio::select! {
            never = publisher.run() => match never {},
            () = tokio::time::sleep(Duration::from_secs(3)) => {}
        }
    };
    publishing.await;
    assert!(scene.toy.looks.load(Ordering::Relaxed) <= 3, "it is idle");

    let waiting = |waiting_requests| Load {
        waiting_requests,
        ..Default::default()
    };
    let asked = scene.handler.loads.load(Ordering::Relaxed);
    *scene.toy.load.lock() = waiting(3);
    let known = async {
        while scene.remote.load() != waiting(3) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let begun = tokio::time::Instant::now();
    let generation = scene.remote.generate(GenerateRequest::default()).await;
    tokio::select! {
        never = publisher.run() => match never {},
        () = known => {}
    }
    drop(generation);
    assert!(begun.elapsed() < Duration::from_millis(150));
    assert_eq!(scene.handler.loads.load(Ordering::Relaxed), asked);
}

/// The card that the remote engine has at last, while something is published.
async fn next_card(changes: &mut BoxStream<'static, Arc<WorkerCard>>) -> Arc<WorkerCard> {
    let next = timeout(Duration::from_secs(600), changes.next()).await;
    next.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_card_that_changes_is_published_at_once_and_made_up_for_when_it_is_lost() {
    let scene = Scene::new().await;
    let card = |revision: u64, weight: f64| {
        let first = WorkerCard::new("toy", scene.toy.info.clone());
        Arc::new(WorkerCard {
            weight,
            revision,
            ..first
        })
    };
    let (own, published) = watch::channel(scene.remote.card());
    let mut publisher = scene.report_publisher(published).await;
    let publishing = scene
        .tasks
        .spawn(TaskKind::Background, "publish", async move {
            match publisher.run().await {}
        });
    let mut changes = scene.remote.card_changes();
    scene.remote.load();

    // It is idle, and is not waited for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    own.send_replace(card(1, 0.5));
    assert_eq!(next_card(&mut changes).await, card(1, 0.5));
    assert!(begun.elapsed() < Duration::from_millis(100));

    scene.is_losing.store(true, Ordering::Relaxed);
    own.send_replace(card(2, 0.25));
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.is_losing.store(false, Ordering::Relaxed);
    assert_eq!(next_card(&mut changes).await, card(2, 0.25));

    // Discovery is late, and then first.
    scene.remote.take_card(card(1, 0.5).encode()).unwrap();
    assert_eq!(scene.remote.card(), card(2, 0.25));
    scene.remote.take_card(card(3, 0.0).encode()).unwrap();
    assert_eq!(next_card(&mut changes).await, card(3, 0.0));
    own.send_replace(card(3, 0.0));
    own.send_replace(card(4, 1.0));
    assert_eq!(next_card(&mut changes).await, card(4, 1.0));

    // What is not this worker's to say changes nothing.
    let other = Arc::new(WorkerCard {
        weights: "others".into(),
        ..(*card(5, 7.0)).clone()
    });
    let error = scene.remote.take_card(other.encode()).unwrap_err();
    assert_eq!(error.reason, "other_version");
    own.send_replace(other);
    tokio::time::sleep(Duration::from_secs(5)).await;
    own.send_replace(card(6, 2.0));
    assert_eq!(next_card(&mut changes).await, card(6, 2.0));
    publishing.cancel();
}
