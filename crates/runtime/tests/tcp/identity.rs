//! Who is believed, of those that discovery names.

use std::sync::Arc;

use bytes::Bytes;
use forebay_observability::Registry;
use forebay_protocols::ErrorClass;
use forebay_runtime::{
    Discovery as _, DownCause, EndpointId, EventPlane, InProcessEvents, Instance, MemberEvent,
    MemoryDiscovery, Planes, RequestPlane as _, Served, TcpConfig, members,
};
use forebay_tokens::WorkerId;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};

use crate::in_time;
use crate::numbers::Numbers;
use crate::process::Process;

/// A frontend, and what discovery says to it.
struct Frontend {
    discovery: MemoryDiscovery,
    members: BoxStream<'static, MemberEvent>,
    _process: Process,
}

impl Frontend {
    async fn start() -> Self {
        let process = Process::start(TcpConfig::default()).await;
        let discovery = MemoryDiscovery::new();
        let planes = Planes {
            discovery: Arc::new(discovery.clone()),
            requests: Arc::new(process.plane.clone()),
            events: Arc::new(InProcessEvents::new()) as Arc<dyn EventPlane>,
        };
        Self {
            discovery,
            members: members(&planes, endpoint(), &Registry::new()),
            _process: process,
        }
    }

    async fn next(&mut self) -> MemberEvent {
        in_time(self.members.next()).await.unwrap()
    }
}

fn endpoint() -> EndpointId {
    EndpointId::new("test", "worker", "engine").unwrap()
}

fn record(worker: u64, served: &dyn Served, card: &'static str) -> Instance {
    Instance {
        endpoint: endpoint(),
        worker: WorkerId(worker),
        address: served.address().to_owned(),
        card: Bytes::from_static(card.as_bytes()),
    }
}

#[tokio::test]
async fn a_record_is_its_instances_own_or_is_refused() {
    let process = Process::start(TcpConfig::default()).await;
    let served = process.serve(1, Arc::new(Numbers::new())).await;
    let plane = Process::start(TcpConfig::default()).await.plane;
    let own = record(1, &*served, "card");
    let ask = |instance: Instance| in_time(plane.confirm(&instance));
    let confirm = |instance| async move { ask(instance).await.unwrap() };
    let error = ask(own.clone()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable, "nothing yet");
    served.announce(own.card.clone());
    assert!(confirm(own.clone()).await);
    assert!(!confirm(record(1, &*served, "another")).await);
    let mut other = record(2, &*served, "card");
    assert!(ask(other.clone()).await.is_err(), "that one is not there");
    other.address = "tcp:nowhere".to_owned();
    assert!(!confirm(other).await);
    served.announce(Bytes::from_static(b"another"));
    assert!(confirm(record(1, &*served, "another")).await);
    assert!(confirm(own).await, "discovery may still have that one");
    assert!(!confirm(record(1, &*served, "a third")).await);
}

#[tokio::test]
async fn who_discovery_makes_up_is_no_member() {
    let (one, two) = (
        Process::start(TcpConfig::default()).await,
        Process::start(TcpConfig::default()).await,
    );
    let first = one.serve(1, Arc::new(Numbers::new())).await;
    let second = two.serve(2, Arc::new(Numbers::new())).await;
    let (own, other) = (record(1, &*first, "one"), record(2, &*second, "two"));
    let mut frontend = Frontend::start().await;
    let known = frontend.discovery.clone();
    let register = |instance: Instance| {
        let discovery = known.clone();
        async move { discovery.register(instance).await.unwrap() }
    };
    // The worker itself has not said so.
    let forged = register(record(1, &*first, "forged")).await;
    // A worker that is none, at the address of one.
    let mut ghost = record(0xbad, &*first, "one");
    let _ghost = register(ghost.clone()).await;
    ghost.worker = WorkerId(0xbae);
    ghost.address = ghost.address.replace("0001", "0bae");
    let _served_by_nobody = register(ghost).await;
    second.announce(other.card.clone());
    let _second = register(other.clone()).await;
    assert_eq!(frontend.next().await, MemberEvent::Up(other.clone()));

    first.announce(own.card.clone());
    drop(forged);
    let registration = register(own.clone()).await;
    assert_eq!(frontend.next().await, MemberEvent::Up(own.clone()));

    // Neither another card nor another process takes the place of who answers.
    let _forged = register(record(1, &*first, "forged")).await;
    let usurper = two.serve(1, Arc::new(Numbers::new())).await;
    let usurped = record(1, &*usurper, "one");
    usurper.announce(usurped.card.clone());
    let _usurped = register(usurped.clone()).await;
    drop(registration);
    second.announce(Bytes::from_static(b"marker"));
    let marker = record(2, &*second, "marker");
    let _marker = register(marker.clone()).await;
    assert_eq!(frontend.next().await, MemberEvent::Changed(marker));
    assert!(frontend.members.next().now_or_never().is_none());

    // Who is gone can be followed.
    drop(first);
    let down = MemberEvent::Down(WorkerId(1), DownCause::Moved);
    assert_eq!(frontend.next().await, down);
    assert_eq!(frontend.next().await, MemberEvent::Up(usurped));
}
