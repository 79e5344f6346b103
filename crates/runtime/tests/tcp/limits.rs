//! Bounds, and peers that do not keep to anything.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{Config, Hello, Incarnation, Preface, Refusal, Session, SessionId};
use forebay_observability::Registry;
use forebay_protocols::ErrorClass;
use forebay_runtime::{
    BindError, Health, PeerState, RequestPlane as _, ResponseStream, StreamHandler, StreamRequest,
    Tasks, TcpConfig, TcpPlane,
};
use futures::{FutureExt as _, StreamExt as _, future, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::numbers::{ECHO, NOTHING, Numbers, failure, read, request};
use crate::process::Process;
use crate::raw::say_hello;
use crate::{in_time, until};

#[tokio::test]
async fn frames_of_64_mebibytes_pass_and_larger_ones_are_refused() {
    const LARGEST: usize = 64 << 20;
    let server = Process::start(TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let largest = Bytes::from(vec![7; LARGEST]);
    let request_of = |frame: Bytes| StreamRequest {
        rest: stream::iter([frame]).boxed(),
        ..request(ECHO)
    };
    let mut answer = client
        .plane
        .open(served.address(), request_of(largest.clone()));
    assert!(in_time(answer.next()).await.unwrap().unwrap() == largest);
    assert!(in_time(answer.next()).await.is_none());
    let larger = Bytes::from(vec![7; LARGEST + 1]);
    let answer = client
        .plane
        .open(served.address(), request_of(larger.clone()));
    let error = failure(answer).await;
    assert_eq!(error.class, ErrorClass::TooLarge);
    assert_eq!(error.reason, "frame_too_large");
    let first = StreamRequest::of(larger);
    let error = failure(client.plane.open(served.address(), first)).await;
    assert_eq!(error.reason, "frame_too_large");
}

#[tokio::test]
async fn frames_that_come_in_part_have_a_bound_together_and_all_of_them_come() {
    const FRAME: usize = 4 << 20;
    const PARTS: usize = 1 << 20;
    let config = TcpConfig {
        max_frame_bytes: FRAME,
        max_part_bytes: PARTS,
        ..TcpConfig::default()
    };
    let server = Process::start(config.clone()).await;
    let client = Process::start(config).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let frame = Bytes::from(vec![7; FRAME]);
    let echoes = (0..16).map(|_| async {
        let request = StreamRequest {
            rest: stream::iter([frame.clone()]).boxed(),
            ..request(ECHO)
        };
        let mut answer = client.plane.open(served.address(), request);
        assert!(answer.next().await.unwrap().unwrap() == frame);
        assert!(answer.next().await.is_none());
    });
    let most = Cell::new(0.0_f64);
    let watching = async {
        loop {
            let held = server.metric("forebay_tcp_server_part_bytes");
            most.set(most.get().max(held));
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = in_time(future::join_all(echoes)) => {}
        () = watching => {}
    }
    let most = most.get();
    assert!(most > 0.0 && most <= (PARTS + FRAME) as f64, "{most}");
    assert_eq!(server.metric("forebay_tcp_server_part_bytes"), 0.0);
    assert_eq!(client.metric("forebay_tcp_client_part_bytes"), 0.0);
}

#[tokio::test]
async fn a_server_that_takes_smaller_frames_says_so() {
    let server = Process::start(TcpConfig {
        max_frame_bytes: 1000,
        ..TcpConfig::default()
    })
    .await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut waiting = client.plane.open(served.address(), request(NOTHING));
    read(&mut waiting, 0..1).await;
    let frame = || Bytes::from(vec![7; 1001]);
    let later = StreamRequest {
        rest: stream::iter([frame()]).boxed(),
        ..request(ECHO)
    };
    for request in [StreamRequest::of(frame()), later] {
        let error = failure(client.plane.open(served.address(), request)).await;
        assert_eq!(error.reason, "frame_too_large");
    }
}

/// Reads what its client says, and then has something to do that does not end.
struct Busy(Arc<()>);

impl StreamHandler for Busy {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let busy = self.0.clone();
        let answer = async move {
            request.rest.for_each(|_| future::ready(())).await;
            future::pending::<()>().await;
            drop(busy);
            Ok(request.first)
        };
        answer.into_stream().boxed()
    }
}

#[tokio::test]
async fn nobody_works_on_for_a_client_that_said_too_much() {
    let server = Process::start(TcpConfig {
        max_frame_bytes: 1000,
        ..TcpConfig::default()
    })
    .await;
    let client = Process::start(TcpConfig::default()).await;
    let busy = Arc::new(());
    let served = server.serve(1, Arc::new(Busy(busy.clone()))).await;
    let request = StreamRequest {
        rest: stream::iter([Bytes::from(vec![7; 1001])]).boxed(),
        ..request(NOTHING)
    };
    let error = failure(client.plane.open(served.address(), request)).await;
    assert_eq!(error.reason, "frame_too_large");
    until(|| Arc::strong_count(&busy) == 2).await;
}

#[tokio::test]
async fn more_streams_than_may_be_are_refused_and_the_others_go_on() {
    let limited = TcpConfig {
        max_streams: 4,
        ..TcpConfig::default()
    };
    let server = Process::start(limited).await;
    let client = Process::start(TcpConfig::default()).await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;
    let open = || client.plane.open(served.address(), request(NOTHING));
    let mut answers: Vec<_> = (0..4).map(|_| open()).collect();
    for answer in &mut answers {
        read(answer, 0..1).await;
    }
    for _ in 0..3 {
        let error = failure(open()).await;
        assert_eq!(error.class, ErrorClass::CapacityExhausted);
        assert_eq!(error.reason, "too_many_streams");
    }
    numbers.run(4).await;
    answers.pop();
    numbers.run(3).await;
    read(&mut open(), 0..1).await;
}

#[tokio::test]
async fn watches_take_no_place_of_a_request() {
    let limited = TcpConfig {
        max_streams: 2,
        ..TcpConfig::default()
    };
    let server = Process::start(limited.clone()).await;
    let client = Process::start(limited).await;
    let mut served = Vec::new();
    let mut watches = Vec::new();
    for worker in 0..8 {
        let worker = server.serve(worker, Arc::new(Numbers::new())).await;
        let mut watch = client.plane.peer(worker.address());
        assert_eq!(in_time(watch.next()).await, Some(PeerState::Reachable));
        served.push(worker);
        watches.push(watch);
    }
    let open = || client.plane.open(served[0].address(), request(NOTHING));
    let mut answers = [open(), open()];
    for answer in &mut answers {
        read(answer, 0..1).await;
    }
    assert_eq!(failure(open()).await.reason, "too_many_streams");
}

#[tokio::test]
async fn more_connections_than_may_be_are_refused() {
    let limited = TcpConfig {
        max_connections: 1,
        ..TcpConfig::default()
    };
    let server = Process::start(limited).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let first = Process::start(TcpConfig::default()).await;
    let mut answer = first.plane.open(served.address(), request(NOTHING));
    read(&mut answer, 0..1).await;
    let second = Process::start(TcpConfig::default()).await;
    let error = failure(second.plane.open(served.address(), request(NOTHING))).await;
    assert_eq!(error.class, ErrorClass::CapacityExhausted);
    assert_eq!(error.reason, "too_many_connections");
}

#[tokio::test]
async fn who_says_nothing_or_nonsense_is_hung_up_on() {
    let server = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    for said in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"FMUX", &[0; 5000]] {
        let mut socket = TcpStream::connect(server.plane.local_addr()).await.unwrap();
        socket.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // A reset is a way to hang up, too.
        let _ = in_time(socket.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{answer:?}");
    }
    until(|| server.metric("forebay_tcp_server_refused_total") == 4.0).await;
    let client = Process::start(TcpConfig::default()).await;
    let mut answer = client.plane.open(served.address(), request(NOTHING));
    read(&mut answer, 0..1).await;
}

#[tokio::test]
async fn a_connection_that_does_not_fit_its_session_changes_nothing() {
    let server = Process::start(TcpConfig::default()).await;
    let hello = Session::client(Config::default(), SessionId(7), Incarnation(1)).hello();
    let connect = || async {
        let at = server.plane.local_addr();
        TcpStream::connect(at).await.unwrap()
    };
    let mut first = connect().await;
    let told = say_hello(&mut first, hello).await;
    assert!(matches!(told, Preface::Hello(_)), "{told:?}");
    let ahead = Hello {
        resumes: true,
        received: 99,
        ..hello
    };
    let mut second = connect().await;
    let told = say_hello(&mut second, ahead).await;
    assert_eq!(told, Preface::Refused(Refusal::Sequence));
    assert_eq!(server.metric("forebay_tcp_server_refused_total"), 1.0);
    // A heartbeat.
    in_time(first.read_u8()).await.unwrap();
    assert_eq!(server.metric("forebay_tcp_server_connections"), 1.0);
}

/// Computes where it should wait.
struct Computing;

impl StreamHandler for Computing {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let answer = async move {
            std::thread::sleep(Duration::from_millis(60));
            Ok(request.first)
        };
        answer.into_stream().boxed()
    }
}

#[tokio::test]
async fn answers_that_compute_are_counted() {
    let server = Process::start(TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Computing)).await;
    let mut answer = client.plane.open(served.address(), request(NOTHING));
    in_time(answer.next()).await.unwrap().unwrap();
    until(|| server.metric("forebay_tcp_server_slow_polls_total") == 1.0).await;
    assert!(in_time(answer.next()).await.is_none());
}

#[tokio::test]
async fn a_handler_that_panics_is_its_streams_own() {
    let server = Process::start(TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut waiting = client.plane.open(served.address(), request(NOTHING));
    read(&mut waiting, 0..1).await;
    // It takes texts only.
    let broken = StreamRequest::of(Bytes::from_static(&[0xff]));
    let error = failure(client.plane.open(served.address(), broken)).await;
    assert_eq!(error.class, ErrorClass::Internal);
    let mut other = client.plane.open(served.address(), request(NOTHING));
    read(&mut other, 0..1).await;
}

#[tokio::test]
async fn a_connection_that_nobody_needs_is_closed() {
    let server = Process::start(TcpConfig::default()).await;
    let client = Process::start(TcpConfig {
        idle: Duration::from_millis(20),
        ..TcpConfig::default()
    })
    .await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    for _ in 0..3 {
        let mut answer = client.plane.open(served.address(), request(NOTHING));
        read(&mut answer, 0..1).await;
        assert_eq!(server.metric("forebay_tcp_server_sessions"), 1.0);
        drop(answer);
        until(|| client.metric("forebay_tcp_client_sessions") == 0.0).await;
        until(|| server.metric("forebay_tcp_server_sessions") == 0.0).await;
        until(|| server.metric("forebay_tcp_server_connections") == 0.0).await;
    }
    assert_eq!(client.metric("forebay_tcp_client_streams"), 0.0);
    assert_eq!(client.metric("forebay_tcp_client_unread_chunks"), 0.0);
}

#[tokio::test]
async fn who_listens_on_every_interface_has_to_say_where_it_is() {
    let config = TcpConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..TcpConfig::default()
    };
    let registry = Registry::new();
    let bound = TcpPlane::bind(
        config.clone(),
        &Tasks::new(&registry),
        &registry,
        &Health::new(),
    )
    .await;
    assert!(matches!(bound, Err(BindError::Unadvertised { .. })));
    for (advertise, expected) in [
        ("worker-1.example", "tcp://worker-1.example:"),
        ("10.1.2.3", "tcp://10.1.2.3:"),
        ("10.1.2.3:7000", "tcp://10.1.2.3:7000/"),
        ("::1", "tcp://[::1]:"),
        ("[::1]:7000", "tcp://[::1]:7000/"),
    ] {
        let process = Process::start(TcpConfig {
            advertise: Some(advertise.to_owned()),
            ..config.clone()
        })
        .await;
        let served = process.serve(1, Arc::new(Numbers::new())).await;
        let address = served.address();
        assert!(address.starts_with(expected), "{address}");
    }
}
