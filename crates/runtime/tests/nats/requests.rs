use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{
    EndpointId, Instance, NatsPlane, NatsPlaneConfig, PeerState, PeerWatch, PlaneError,
    RequestPlane, ResponseStream, Served, StreamHandler, StreamRequest,
    request_plane_conformance_tests,
};
use forebay_testkit::{Direction, FaultProxy, NatsServer};
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::{StreamExt as _, future, stream};
use tokio::runtime::{self, Runtime};

use crate::{Process, in_time};

/// A plane with a server of its own.
struct OwnServer {
    plane: NatsPlane,
    _process: Process,
    _server: NatsServer,
}

impl OwnServer {
    async fn start() -> Self {
        let server = NatsServer::start();
        let process = Process::start(&server).await;
        Self {
            plane: plane(&process, NatsPlaneConfig::default()).await,
            _process: process,
            _server: server,
        }
    }
}

impl RequestPlane for OwnServer {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        self.plane.serve(endpoint, worker, handler)
    }

    fn open(&self, address: &str, request: StreamRequest) -> ResponseStream {
        self.plane.open(address, request)
    }

    fn peer(&self, address: &str) -> PeerWatch {
        self.plane.peer(address)
    }

    fn confirm(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, Error>> {
        self.plane.confirm(instance)
    }
}

request_plane_conformance_tests!(OwnServer::start().await);

async fn plane(process: &Process, config: NatsPlaneConfig) -> NatsPlane {
    let plane = NatsPlane::start(
        &process.connection,
        config,
        &process.tasks,
        &process.registry,
    );
    in_time(plane).await.unwrap()
}

/// Answers with the number that it is asked for, of frames that count from 0, each after a turn of
/// the other tasks.
struct Count;

impl StreamHandler for Count {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let count: u64 = std::str::from_utf8(&request.first)
            .unwrap()
            .parse()
            .unwrap();
        stream::iter(0..count)
            .then(|number| async move {
                tokio::task::yield_now().await;
                Ok(Bytes::from(number.to_string()))
            })
            .boxed()
    }
}

async fn serve(plane: &NatsPlane, handler: impl StreamHandler) -> Box<dyn Served> {
    let endpoint = EndpointId::new("forebay", "worker", "engine").unwrap();
    let served = plane.serve(&endpoint, WorkerId(1), Arc::new(handler));
    in_time(served).await.unwrap()
}

fn ask(plane: &NatsPlane, served: &dyn Served, count: u64) -> ResponseStream {
    let request = StreamRequest::of(count.to_string().into());
    plane.open(served.address(), request)
}

/// Reads frames from `from` on, to the end of the answer.
async fn read_from(mut answer: ResponseStream, from: u64) -> Result<u64, Error> {
    let mut expected = from;
    while let Some(frame) = in_time(answer.next()).await {
        assert_eq!(frame?, expected.to_string());
        expected += 1;
    }
    Ok(expected)
}

async fn state(peer: &mut PeerWatch) -> PeerState {
    in_time(peer.next()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_after_a_restart_of_the_server() {
    const FRAMES: u64 = 200_000;
    let mut server = NatsServer::start();
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let worker = plane(&there, NatsPlaneConfig::default()).await;
    let served = serve(&worker, Count).await;
    let client = plane(&here, NatsPlaneConfig::default()).await;
    let mut peer = client.peer(served.address());
    assert_eq!(state(&mut peer).await, PeerState::Reachable);

    let mut running = Vec::new();
    for _ in 0..4 {
        let mut answer = ask(&client, &*served, FRAMES);
        assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "0");
        running.push(read_from(answer, 1));
    }
    let running = future::join_all(running);
    let restart = async {
        server.kill();
        here.connected(false).await;
        there.connected(false).await;
        // One that is opened meanwhile waits.
        let waiting = ask(&client, &*served, 10);
        server.restart();
        read_from(waiting, 0).await
    };
    let (running, waited) = future::join(running, restart).await;
    for end in running {
        assert_eq!(end.unwrap(), FRAMES);
    }
    assert_eq!(waited.unwrap(), 10);
    assert!(here.metric("forebay_nats_client_reattachments_total") >= 1.0);
    // The peer was never lost.
    drop(served);
    assert_eq!(state(&mut peer).await, PeerState::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_wait_for_a_server_that_is_silent() {
    const FRAMES: u64 = 50_000;
    let server = NatsServer::start();
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let worker = plane(&there, NatsPlaneConfig::default()).await;
    let served = serve(&worker, Count).await;
    let client = plane(&here, NatsPlaneConfig::default()).await;
    let mut answer = ask(&client, &*served, FRAMES);
    assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "0");
    let pause = async {
        server.pause();
        here.connected(false).await;
        there.connected(false).await;
        server.resume();
    };
    let (end, ()) = future::join(read_from(answer, 1), pause).await;
    assert_eq!(end.unwrap(), FRAMES);
}

#[tokio::test]
async fn a_server_that_does_not_come_back_ends_streams_after_the_grace() {
    let mut server = NatsServer::start();
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let worker = plane(&there, NatsPlaneConfig::default()).await;
    let served = serve(&worker, Forever).await;
    let config = NatsPlaneConfig {
        grace: Duration::from_millis(100),
        ..NatsPlaneConfig::default()
    };
    let client = plane(&here, config).await;
    let mut answer = ask(&client, &*served, 0);
    assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "first");
    server.kill();
    let error = in_time(answer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(error.reason, "worker_lost");
    // New ones wait as long.
    let error = in_time(ask(&client, &*served, 1).next())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(error.reason, "worker_unreachable");
}

/// Answers with one frame, and no end.
struct Forever;

impl StreamHandler for Forever {
    fn handle(&self, _request: StreamRequest) -> ResponseStream {
        let first = stream::iter([Ok(Bytes::from_static(b"first"))]);
        first.chain(stream::pending()).boxed()
    }
}

/// A runtime of its own stands for a process: when it is shut down, all of it stops without a word.
fn runtime() -> Runtime {
    let mut runtime = runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_process_that_is_gone_is_lost() {
    let server = NatsServer::start();
    let there = runtime();
    let (served, _process, _plane) = there.block_on(async {
        let process = Process::start(&server).await;
        let plane = plane(&process, NatsPlaneConfig::default()).await;
        (serve(&plane, Forever).await, process, plane)
    });
    let here = runtime();
    here.block_on(async {
        let process = Process::start(&server).await;
        let client = plane(&process, NatsPlaneConfig::default()).await;
        let mut peer = client.peer(served.address());
        assert_eq!(state(&mut peer).await, PeerState::Reachable);
        let mut answer = ask(&client, &*served, 0);
        assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "first");
        there.shutdown_background();
        let error = in_time(answer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable);
        assert_eq!(error.reason, "worker_lost");
        assert_eq!(state(&mut peer).await, PeerState::Lost);
        let error = in_time(ask(&client, &*served, 1).next())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.reason, "worker_unreachable");
    });
}

#[test]
fn a_client_that_is_gone_leaves_nothing() {
    let server = NatsServer::start();
    let there = runtime();
    let (served, process, _plane) = there.block_on(async {
        let process = Process::start(&server).await;
        let plane = plane(&process, NatsPlaneConfig::default()).await;
        (serve(&plane, Forever).await, process, plane)
    });
    let here = runtime();
    let (_answer, _client) = here.block_on(async {
        let process = Process::start(&server).await;
        let client = plane(&process, NatsPlaneConfig::default()).await;
        let mut answer = ask(&client, &*served, 0);
        assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "first");
        (answer, client)
    });
    assert_eq!(process.metric("forebay_nats_server_streams"), 1.0);
    here.shutdown_background();
    there.block_on(in_time(served.drain()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_frame_goes_through_both_ways() {
    struct Echo;
    impl StreamHandler for Echo {
        fn handle(&self, request: StreamRequest) -> ResponseStream {
            stream::iter([Ok(request.first)]).boxed()
        }
    }
    let server = NatsServer::start();
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let worker = plane(&there, NatsPlaneConfig::default()).await;
    let served = serve(&worker, Echo).await;
    let client = plane(&here, NatsPlaneConfig::default()).await;
    let frame: Bytes = (0..64 << 20).map(|byte| (byte >> 8) as u8).collect();
    let mut answer = client.open(served.address(), StreamRequest::of(frame.clone()));
    assert!(in_time(answer.next()).await.unwrap().unwrap() == frame);
    assert!(in_time(answer.next()).await.is_none());

    let larger = Bytes::from(vec![0; (64 << 20) + 1]);
    let mut answer = client.open(served.address(), StreamRequest::of(larger));
    let error = in_time(answer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::TooLarge);
}

/// A process whose way to the server can be disturbed.
async fn behind_proxy(server: &NatsServer) -> (Process, FaultProxy) {
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    let proxy = FaultProxy::to(target).unwrap();
    let process = Process::at(format!("nats://{}", proxy.address())).await;
    (process, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_when_one_side_alone_loses_the_server() {
    const FRAMES: u64 = 50_000;
    let server = NatsServer::start();
    let (here, here_proxy) = behind_proxy(&server).await;
    let (there, there_proxy) = behind_proxy(&server).await;
    let worker = plane(&there, NatsPlaneConfig::default()).await;
    let served = serve(&worker, Count).await;
    let client = plane(&here, NatsPlaneConfig::default()).await;
    for proxy in [&here_proxy, &there_proxy] {
        let mut answer = ask(&client, &*served, FRAMES);
        assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "0");
        proxy.cut();
        assert_eq!(read_from(answer, 1).await.unwrap(), FRAMES);
    }
    assert_eq!(here.metric("forebay_nats_reconnects_total"), 1.0);
    assert_eq!(there.metric("forebay_nats_reconnects_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_nothing_comes_from_is_lost_until_something_does() {
    let server = NatsServer::start();
    let here = Process::start(&server).await;
    let (there, proxy) = behind_proxy(&server).await;
    let worker = plane(&there, NatsPlaneConfig::default()).await;
    let served = serve(&worker, Forever).await;
    let client = plane(&here, NatsPlaneConfig::default()).await;
    let mut peer = client.peer(served.address());
    assert_eq!(state(&mut peer).await, PeerState::Reachable);
    let mut answer = ask(&client, &*served, 0);
    assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "first");
    proxy.stall(Direction::ToTarget);
    let error = in_time(answer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.reason, "worker_lost");
    assert_eq!(state(&mut peer).await, PeerState::Lost);
    proxy.pass();
    assert_eq!(state(&mut peer).await, PeerState::Reachable);
    let mut answer = ask(&client, &*served, 0);
    assert_eq!(in_time(answer.next()).await.unwrap().unwrap(), "first");
}

#[tokio::test]
async fn a_record_is_its_instances_own_or_is_refused() {
    let server = NatsServer::start();
    let (own, other) = (Process::start(&server).await, Process::start(&server).await);
    let config = NatsPlaneConfig::default;
    let (own, other) = (plane(&own, config()).await, plane(&other, config()).await);
    let served = serve(&own, Count).await;
    let mut instance = Instance {
        endpoint: EndpointId::new("forebay", "worker", "engine").unwrap(),
        worker: WorkerId(1),
        address: served.address().to_owned(),
        card: Bytes::from_static(b"card"),
    };
    let error = in_time(other.confirm(&instance)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable, "nothing yet");
    served.announce(instance.card.clone());
    assert!(in_time(other.confirm(&instance)).await.unwrap());
    instance.card = Bytes::from_static(b"another");
    assert!(!in_time(other.confirm(&instance)).await.unwrap());
    instance.address = "nowhere".to_owned();
    assert!(!in_time(other.confirm(&instance)).await.unwrap());
}
