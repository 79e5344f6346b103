use bytes::Bytes;
use forebay_runtime::{
    EndpointId, Event, EventPlane, EventStream, Instance, Lagged, NatsEvents, PlaneError,
    Publisher, Topic, event_plane_conformance_tests,
};
use forebay_testkit::NatsServer;
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::future::BoxFuture;

use crate::{Process, in_time};

/// A plane with a server of its own.
struct OwnServer {
    events: NatsEvents,
    _process: Process,
    _server: NatsServer,
}

impl OwnServer {
    async fn start() -> Self {
        Self::with(NatsServer::start()).await
    }

    async fn with(server: NatsServer) -> Self {
        let process = Process::start(&server).await;
        Self {
            events: NatsEvents::new(&process.connection, &process.tasks),
            _process: process,
            _server: server,
        }
    }
}

impl EventPlane for OwnServer {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        self.events.publisher(topic, publisher)
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>> {
        self.events.subscribe(topic, publisher)
    }
}

event_plane_conformance_tests!(OwnServer::start().await);

fn topic() -> Topic {
    Topic::new("topic").unwrap()
}

async fn publisher(plane: &dyn EventPlane) -> Box<dyn Publisher> {
    in_time(plane.publisher(&topic(), WorkerId(1)))
        .await
        .unwrap()
}

async fn subscribe(plane: &dyn EventPlane) -> EventStream {
    let publisher = Instance {
        endpoint: EndpointId::new("a", "b", "c").unwrap(),
        worker: WorkerId(1),
        address: "wherever".into(),
        card: Bytes::new(),
    };
    in_time(plane.subscribe(&topic(), &publisher))
        .await
        .unwrap()
}

async fn next(events: &mut EventStream) -> Result<Event, Lagged> {
    in_time(events.next()).await.unwrap()
}

#[tokio::test]
async fn events_go_from_process_to_process() {
    let server = NatsServer::start();
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let here = NatsEvents::new(&here.connection, &here.tasks);
    let there = NatsEvents::new(&there.connection, &there.tasks);
    let mut events = subscribe(&here).await;
    // Nothing that is published after the subscription is missed, by whomever.
    let mut publisher = publisher(&there).await;
    for sequence in 0..10 {
        publisher.publish(Bytes::from_static(b"hello"));
        let event = next(&mut events).await.unwrap();
        assert_eq!(event.stamp.sequence, sequence);
        assert_eq!(event.payload, "hello");
    }
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_leaves_a_gap_that_is_told() {
    let mut server = NatsServer::start();
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let events = NatsEvents::new(&here.connection, &here.tasks);
    let mut events = subscribe(&events).await;
    let plane = NatsEvents::new(&there.connection, &there.tasks);
    let mut publisher = publisher(&plane).await;
    publisher.publish(Bytes::from_static(b"before"));
    assert_eq!(next(&mut events).await.unwrap().payload, "before");

    server.kill();
    here.connected(false).await;
    there.connected(false).await;
    // Numbered, and never waited for.
    for sequence in 1..20_000 {
        let stamp = publisher.publish(Bytes::from_static(b"meanwhile"));
        assert_eq!(stamp.sequence, sequence);
    }
    server.restart();

    // Told although nobody says anything any more; what still came is in order.
    let mut expected = 1;
    while let Ok(event) = next(&mut events).await {
        assert_eq!(event.stamp.sequence, expected);
        expected += 1;
    }
    // Goes on from there, each gap told.
    there.connected(true).await;
    let last = publisher.publish(Bytes::from_static(b"after")).sequence;
    let mut is_told = true;
    while expected <= last {
        match next(&mut events).await {
            Err(_) => is_told = true,
            Ok(event) => {
                let sequence = event.stamp.sequence;
                assert!(sequence == expected || (sequence > expected && is_told));
                is_told = false;
                expected = sequence + 1;
            }
        }
    }
    assert!(
        there.metric("forebay_nats_events_dropped_total") > 0.0,
        "memory is bounded"
    );
}

#[tokio::test]
async fn a_payload_is_cut_to_what_the_server_takes() {
    let server = NatsServer::start();
    let plane = OwnServer::with(server).await;
    let mut events = subscribe(&plane).await;
    let mut publisher = publisher(&plane).await;
    // A message takes a MiB by default.
    for size in [
        0,
        1,
        (1 << 20) - 40,
        1 << 20,
        (1 << 20) + 1,
        8 << 20,
        64 << 20,
    ] {
        let payload: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        let payload = Bytes::from(payload);
        publisher.publish(payload.clone());
        let event = next(&mut events).await.unwrap();
        assert!(event.payload == payload, "{size}");
    }
    publisher.publish(Bytes::from(vec![0; (64 << 20) + 1]));
    publisher.publish(Bytes::from_static(b"next"));
    assert_eq!(next(&mut events).await, Err(Lagged { missed: 1 }));
    assert_eq!(next(&mut events).await.unwrap().payload, "next");
}

#[tokio::test]
async fn what_nobody_reads_any_more_is_not_sent() {
    let server = NatsServer::start();
    let process = Process::start(&server).await;
    let plane = NatsEvents::new(&process.connection, &process.tasks);
    let mut kept = subscribe(&plane).await;
    drop(subscribe(&plane).await);
    let mut publisher = publisher(&plane).await;
    publisher.publish(Bytes::from_static(b"first"));
    next(&mut kept).await.unwrap();
    // The one that was dropped is unsubscribed before anything of its that comes later is sent.
    let before = process.metric("forebay_nats_received_bytes_total");
    publisher.publish(Bytes::from_static(b"second"));
    next(&mut kept).await.unwrap();
    publisher.publish(Bytes::from_static(b"third"));
    next(&mut kept).await.unwrap();
    let both = process.metric("forebay_nats_received_bytes_total") - before;
    let one = process.metric("forebay_nats_sent_bytes_total") / 3.0;
    assert!(both < 3.0 * one, "{both} bytes for two events of {one}");
}
