//! Connections that are cut and come back.

use std::sync::Arc;
use std::time::Duration;

use forebay_runtime::{PeerState, RequestPlane as _, StreamRequest, TcpConfig};
use forebay_testkit::{Direction, FaultProxy};
use futures::{FutureExt as _, StreamExt as _, stream};

use crate::numbers::{ECHO, ENDLESS, NOTHING, Numbers, failure, frame, read, request};
use crate::process::Process;
use crate::{in_time, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_loses_nothing_and_repeats_nothing() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let server = Process::behind(&proxy, TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;

    let open = |request| client.plane.open(served.address(), request);
    let mut answers: Vec<_> = (0..8).map(|_| open(request(ENDLESS))).collect();
    let mut echo = open(StreamRequest {
        rest: stream::iter((0..).map(frame)).boxed(),
        ..request(ECHO)
    });
    let mut waiting = open(request(NOTHING));
    read(&mut waiting, 0..1).await;
    let mut peer = client.plane.peer(served.address());
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));

    for round in 0..10 {
        let numbers = round * 500..(round + 1) * 500;
        for answer in &mut answers {
            read(answer, numbers.clone()).await;
        }
        read(&mut echo, numbers).await;
        proxy.cut();
        until(|| proxy.connections() == 1).await;
    }
    assert_eq!(*numbers.begun.borrow(), 10, "no request began twice");
    assert!(waiting.next().now_or_never().is_none());
    assert!(
        peer.next().now_or_never().is_none(),
        "it was there all the time"
    );
    until(|| client.metric("forebay_tcp_client_reattachments_total") >= 10.0).await;
    assert_eq!(client.metric("forebay_tcp_client_sessions"), 1.0);
    drop((answers, echo, waiting, peer));
    numbers.run(0).await;
}

#[tokio::test]
async fn bytes_that_vanish_end_the_session_typed() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let server = Process::behind(&proxy, TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;
    let mut answer = client.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..100).await;
    proxy.drop_bytes(Direction::ToClient, 5);
    let error = failure(answer).await;
    assert_eq!(error.reason, "worker_lost", "{error:?}");
    numbers.run(0).await;
    // And the next session is as good as any.
    let mut answer = client.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..100).await;
}

#[tokio::test]
async fn streams_are_opened_while_the_connection_is_away() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let server = Process::behind(&proxy, TcpConfig::default()).await;
    let client = Process::start(TcpConfig {
        // What is away for longer than this ends no stream either, here.
        grace: Duration::from_secs(15),
        ..TcpConfig::default()
    })
    .await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;
    let open = || client.plane.open(served.address(), request(ENDLESS));
    let mut first = open();
    read(&mut first, 0..10).await;
    proxy.half_open();
    proxy.cut();
    let mut second = open();
    assert!(second.next().now_or_never().is_none());
    proxy.pass();
    read(&mut second, 0..10).await;
    read(&mut first, 10..20).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_while_much_is_on_its_way_goes_on() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let server = Process::behind(&proxy, TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let large: Vec<u8> = (0..16 << 20).map(|at: u32| (at % 251) as u8).collect();
    let large = bytes::Bytes::from(large);
    let mut answer = client.plane.open(
        served.address(),
        StreamRequest {
            rest: stream::iter([large.clone(), large.clone()]).boxed(),
            ..request(ECHO)
        },
    );
    let reading = async {
        for _ in 0..2 {
            let echoed = answer.next().await.unwrap().unwrap();
            assert!(echoed == large);
        }
        assert!(answer.next().await.is_none());
    };
    let cutting = async {
        for _ in 0..5 {
            let before = client.metric("forebay_tcp_client_received_bytes_total");
            let enough = before + f64::from(1 << 20);
            until(|| client.metric("forebay_tcp_client_received_bytes_total") > enough).await;
            proxy.cut();
        }
    };
    in_time(futures::future::join(reading, cutting)).await;
}

#[tokio::test]
async fn an_attempt_that_stalls_leaves_time_for_another() {
    let patient = || TcpConfig {
        grace: Duration::from_secs(4),
        connect_timeout: Duration::from_secs(10),
        handshake_timeout: Duration::from_secs(10),
        ..TcpConfig::default()
    };
    let proxy = FaultProxy::to_nowhere().unwrap();
    let server = Process::behind(&proxy, patient()).await;
    let client = Process::start(patient()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut answer = client.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..100).await;
    proxy.half_open();
    proxy.cut();
    // It is taken and never answered.
    until(|| proxy.connections() == 1).await;
    proxy.pass();
    read(&mut answer, 100..1000).await;
    assert_eq!(client.metric("forebay_tcp_client_reattachments_total"), 1.0);
}
