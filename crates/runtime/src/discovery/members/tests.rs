use std::sync::Arc;

use bytes::Bytes;
use forebay_protocols::Error;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::discovery::{Discovery, Registration};
use crate::event_plane::InProcessEvents;
use crate::request_plane::{
    PeerWatch, RequestPlane, ResponseStream, Served, StreamHandler, StreamRequest,
    worker_unreachable,
};

/// Discovery and the state of peers as a test says.
#[derive(Clone, Default)]
struct Script {
    shared: Arc<Mutex<Scripted>>,
}

#[derive(Default)]
struct Scripted {
    /// Where the watch's events come from.
    watch: Option<mpsc::Receiver<InstanceEvent>>,
    /// What lists say; none: they fail.
    list: Option<Vec<Instance>>,
    lists: usize,
    /// Questions whether a record is their own that peers still leave without an answer.
    unanswered: usize,
    peers: HashMap<String, mpsc::Sender<PeerState>>,
}

impl Discovery for Script {
    fn register(&self, _: Instance) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        unreachable!("members register nobody")
    }

    fn list<'a>(&'a self, _: &'a EndpointId) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        let mut shared = self.shared.lock();
        shared.lists += 1;
        let list = shared.list.clone();
        future::ready(list.ok_or_else(away)).boxed()
    }

    fn watch<'a>(&'a self, _: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        let watch = self.shared.lock().watch.take();
        let events = watch.map(|events| {
            stream::unfold(events, |mut events| async move {
                Some((events.recv().await?, events))
            })
            .boxed()
        });
        future::ready(events.ok_or_else(away)).boxed()
    }
}

impl RequestPlane for Script {
    fn serve(
        &self,
        _: &EndpointId,
        _: WorkerId,
        _: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        unreachable!("members serve nothing")
    }

    fn open(&self, _: &str, _: StreamRequest) -> ResponseStream {
        unreachable!("members ask for nothing")
    }

    fn peer(&self, address: &str) -> PeerWatch {
        let (sender, states) = mpsc::channel(8);
        self.shared.lock().peers.insert(address.to_owned(), sender);
        stream::unfold(states, |mut states| async move {
            Some((states.recv().await?, states))
        })
        .boxed()
    }

    fn confirm(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, Error>> {
        let mut shared = self.shared.lock();
        let answer = match shared.unanswered.checked_sub(1) {
            Some(left) => {
                shared.unanswered = left;
                Err(worker_unreachable(&instance.address))
            }
            None => Ok(instance.card != FORGED),
        };
        future::ready(answer).boxed()
    }
}

/// What no peer confirms.
const FORGED: &str = "forged";

fn away() -> PlaneError {
    PlaneError::Unreachable("away".into())
}

struct World {
    script: Script,
    discovery: mpsc::Sender<InstanceEvent>,
    members: BoxStream<'static, MemberEvent>,
    registry: Registry,
}

impl World {
    fn new() -> Self {
        let script = Script::default();
        let (discovery, events) = mpsc::channel(8);
        script.shared.lock().watch = Some(events);
        let planes = Planes {
            discovery: Arc::new(script.clone()),
            requests: Arc::new(script.clone()),
            events: Arc::new(InProcessEvents::new()),
        };
        let registry = Registry::new();
        Self {
            members: members(&planes, endpoint(), &registry),
            registry,
            script,
            discovery,
        }
    }

    async fn discover(&mut self, event: InstanceEvent) {
        self.discovery.send(event).await.unwrap();
        self.nothing().await;
    }

    /// How things stand with the peer at an address, which is watched.
    async fn peer(&self, address: &str, state: PeerState) {
        let peer = self.script.shared.lock().peers[address].clone();
        peer.send(state).await.unwrap();
    }

    fn is_watched(&self, address: &str) -> bool {
        let shared = self.script.shared.lock();
        let peer = shared.peers.get(address);
        peer.is_some_and(|states| !states.is_closed())
    }

    /// How they stand that stand somehow.
    fn standings(&self) -> Vec<String> {
        let metrics = self.registry.encode();
        let name = "forebay_discovery_members{component=\"worker\",state=";
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
        let lines = lines.map(|line| line.replace(['"', '}'], ""));
        lines.filter(|line| !line.ends_with(" 0")).collect()
    }

    async fn next(&mut self) -> MemberEvent {
        let event = timeout(Duration::from_secs(60), self.members.next()).await;
        event.expect("what had to happen did not").unwrap()
    }

    /// Lets it take what there is, which changes nothing for its follower.
    async fn nothing(&mut self) {
        for _ in 0..10 {
            let event = self.members.next().now_or_never();
            assert!(event.is_none(), "{event:?}");
            tokio::task::yield_now().await;
        }
    }
}

fn endpoint() -> EndpointId {
    EndpointId::new("forebay", "worker", "engine").unwrap()
}

fn instance(address: &str, card: &'static str) -> Instance {
    Instance {
        endpoint: endpoint(),
        worker: WorkerId(1),
        address: address.to_owned(),
        card: Bytes::from_static(card.as_bytes()),
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_there_and_reachable_is_up() {
    let mut world = World::new();
    let first = instance("a", "1");
    world
        .discover(InstanceEvent::Present(vec![first.clone()]))
        .await;
    assert!(world.is_watched("a"));
    world.peer("a", PeerState::Reachable).await;
    assert_eq!(world.next().await, MemberEvent::Up(first));
    world.peer("a", PeerState::Lost).await;
    let down = |cause| MemberEvent::Down(WorkerId(1), cause);
    assert_eq!(world.next().await, down(DownCause::Lost));

    // It is another process now.
    let second = instance("b", "1");
    world.discover(InstanceEvent::Put(second.clone())).await;
    assert!(!world.is_watched("a") && world.is_watched("b"));
    world.peer("b", PeerState::Reachable).await;
    assert_eq!(world.next().await, MemberEvent::Up(second));
    let changed = instance("b", "2");
    let put = InstanceEvent::Put(changed.clone());
    world.discovery.send(put).await.unwrap();
    assert_eq!(world.next().await, MemberEvent::Changed(changed));
    world.peer("b", PeerState::Draining).await;
    assert_eq!(world.next().await, down(DownCause::Draining));
    world.discover(InstanceEvent::Removed(WorkerId(1))).await;
    assert!(!world.is_watched("b"));
}

#[tokio::test(start_paused = true)]
async fn who_is_reachable_outlives_its_record_until_discovery_says_so_twice() {
    let mut world = World::new();
    let instance = instance("a", "1");
    world.discover(InstanceEvent::Put(instance.clone())).await;
    world.peer("a", PeerState::Reachable).await;
    assert_eq!(world.next().await, MemberEvent::Up(instance));
    world.discover(InstanceEvent::Expired(WorkerId(1))).await;

    // Discovery is asked again after a while, and its silence is no answer.
    let unlisted = Config::default().unlisted;
    let early = timeout(unlisted * 2, world.members.next()).await;
    assert!(early.is_err());
    assert!(world.script.shared.lock().lists > 1);
    world.script.shared.lock().list = Some(vec![]);
    let down = MemberEvent::Down(WorkerId(1), DownCause::Unlisted);
    assert_eq!(world.next().await, down);
    world.nothing().await;
    assert!(!world.is_watched("a"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_be_had_is_asked_for_again() {
    let mut world = World::new();
    let watch = world.script.shared.lock().watch.take();
    world.nothing().await;
    world.script.shared.lock().watch = watch;
    let first = instance("a", "1");
    let present = InstanceEvent::Present(vec![first.clone()]);
    world.discovery.send(present).await.unwrap();
    let script = world.script.clone();
    let reachable = async {
        let peer = loop {
            if let Some(peer) = script.shared.lock().peers.get("a") {
                break peer.clone();
            }
            sleep(Duration::from_millis(10)).await;
        };
        peer.send(PeerState::Reachable).await.unwrap();
    };
    let (event, ()) = tokio::join!(world.next(), reachable);
    assert_eq!(event, MemberEvent::Up(first));
}

#[tokio::test(start_paused = true)]
async fn records_that_their_peers_do_not_confirm_change_nothing() {
    let mut world = World::new();
    world
        .discover(InstanceEvent::Put(instance("a", FORGED)))
        .await;
    world.peer("a", PeerState::Reachable).await;
    world.nothing().await;
    // It goes as it came, though its peer can be reached.
    world.discover(InstanceEvent::Expired(WorkerId(1))).await;
    assert!(!world.is_watched("a"));

    let own = instance("a", "1");
    world.discover(InstanceEvent::Put(own.clone())).await;
    world.peer("a", PeerState::Reachable).await;
    assert_eq!(world.next().await, MemberEvent::Up(own));
    world
        .discover(InstanceEvent::Put(instance("a", FORGED)))
        .await;
    world.discover(InstanceEvent::Put(instance("b", "1"))).await;
    assert!(world.is_watched("a") && !world.is_watched("b"));
}

#[tokio::test(start_paused = true)]
async fn a_record_at_the_address_of_another_instance_is_not_followed() {
    let mut world = World::new();
    let target = format!("{}/{:016x}", endpoint(), 2);
    let address = format!("tcp://127.0.0.1:1/{target}?identity=worker-2");
    let misplaced = instance(&address, "1");
    let put = InstanceEvent::Put(misplaced.clone());
    world.discover(put).await;
    world
        .discover(InstanceEvent::Present(vec![misplaced]))
        .await;
    assert!(!world.is_watched(&address));
}

#[tokio::test(start_paused = true)]
async fn who_has_not_answered_whether_a_record_is_its_own_is_asked_again() {
    let mut world = World::new();
    world.script.shared.lock().unanswered = 2;
    let own = instance("a", "1");
    world.discover(InstanceEvent::Put(own.clone())).await;
    world.peer("a", PeerState::Reachable).await;
    assert_eq!(world.next().await, MemberEvent::Up(own));
    assert_eq!(world.script.shared.lock().unanswered, 0);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_told_and_so_is_the_end_of_it() {
    let mut world = World::new();
    assert_eq!(world.standings(), [""; 0]);
    let first = instance("a", "1");
    world.discover(InstanceEvent::Put(first.clone())).await;
    assert_eq!(world.standings(), ["connecting 1"]);
    world.script.shared.lock().unanswered = 2;
    let unreached = |event: MemberEvent| match event {
        MemberEvent::Unreached(instance, reason) => {
            assert!(!reason.is_empty());
            instance
        }
        event => panic!("{event:?}"),
    };
    let over = MemberEvent::UnreachedNoMore(WorkerId(1));
    assert_eq!(unreached(world.next().await), first);
    assert_eq!(world.standings(), ["unreached 1"]);
    // It is told once.
    world.peer("a", PeerState::Lost).await;
    world.nothing().await;

    world.peer("a", PeerState::Reachable).await;
    assert_eq!(world.next().await, over);
    assert_eq!(world.standings(), ["unconfirmed 1"]);
    assert_eq!(world.next().await, MemberEvent::Up(first.clone()));
    assert_eq!(world.standings(), ["up 1"]);

    // Who was there is waited for as long.
    world.peer("a", PeerState::Lost).await;
    let down = MemberEvent::Down(WorkerId(1), DownCause::Lost);
    assert_eq!(world.next().await, down);
    assert_eq!(world.standings(), ["lost 1"]);
    world.script.shared.lock().unanswered = 1;
    assert_eq!(unreached(world.next().await), first);
    let gone = InstanceEvent::Expired(WorkerId(1));
    world.discovery.send(gone).await.unwrap();
    assert_eq!(world.next().await, over);
    assert_eq!(world.standings(), [""; 0]);

    world.discover(InstanceEvent::Put(first)).await;
    world.peer("a", PeerState::Draining).await;
    world.nothing().await;
    assert_eq!(world.standings(), ["draining 1"]);
    world.members = stream::pending().boxed();
    assert_eq!(world.standings(), [""; 0]);
}
