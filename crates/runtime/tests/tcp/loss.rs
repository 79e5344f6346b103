//! Peers that are gone, or seem so.

use std::sync::Arc;
use std::time::Duration;

use forebay_protocols::ErrorClass;
use forebay_runtime::{PeerState, RequestPlane as _, TcpConfig};
use forebay_testkit::{Direction, FaultProxy};
use futures::StreamExt as _;

use crate::in_time;
use crate::numbers::{ENDLESS, NOTHING, Numbers, failure, read, request};
use crate::process::Process;

/// A server behind a proxy, and a client of it.
async fn pair(proxy: &FaultProxy) -> (Process, Process) {
    let server = Process::behind(proxy, TcpConfig::default()).await;
    (server, Process::start(TcpConfig::default()).await)
}

#[tokio::test]
async fn a_silent_peer_is_lost_in_whatever_direction_it_is_silent() {
    let both = [Direction::ToTarget, Direction::ToClient];
    for directions in [&both[..], &both[..1], &both[1..]] {
        let proxy = FaultProxy::to_nowhere().unwrap();
        let (server, client) = pair(&proxy).await;
        let numbers = Numbers::new();
        let served = server.serve(1, Arc::new(numbers.clone())).await;
        let mut peer = client.plane.peer(served.address());
        assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));
        let mut answer = client.plane.open(served.address(), request(NOTHING));
        read(&mut answer, 0..1).await;
        for direction in directions {
            proxy.stall(*direction);
        }
        let error = failure(answer).await;
        assert_eq!(error.class, ErrorClass::Unavailable, "{directions:?}");
        assert_eq!(error.reason, "worker_lost", "{directions:?}");
        // What the server worked on is free although nobody could tell it so.
        numbers.run(0).await;
        assert_eq!(in_time(peer.next()).await, Some(PeerState::Lost));
        proxy.pass();
        assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));
        let mut answer = client.plane.open(served.address(), request(NOTHING));
        read(&mut answer, 0..1).await;
    }
}

#[tokio::test]
async fn a_refused_connection_is_waited_for_by_nobody() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let server = Process::behind(&proxy, TcpConfig::default()).await;
    let client = Process::start(TcpConfig {
        // Longer than this test may take.
        grace: Duration::from_secs(600),
        ..TcpConfig::default()
    })
    .await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;
    let mut answer = client.plane.open(served.address(), request(NOTHING));
    read(&mut answer, 0..1).await;
    proxy.refuse();
    let error = failure(answer).await;
    assert_eq!(error.reason, "worker_lost");
    let error = failure(client.plane.open(served.address(), request(NOTHING))).await;
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(error.reason, "worker_unreachable");
    // The client does not come back, as if it had been killed.
    numbers.run(0).await;
}

#[tokio::test]
async fn another_process_in_the_place_goes_on_with_nothing() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let (server, client) = pair(&proxy).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut answer = client.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..10).await;

    let successor = Process::behind(&proxy, TcpConfig::default()).await;
    let numbers = Numbers::new();
    let served_next = successor.serve(2, Arc::new(numbers.clone())).await;
    proxy.cut();
    let error = failure(answer).await;
    assert_eq!(error.reason, "worker_lost");
    let error = failure(client.plane.open(served.address(), request(ENDLESS))).await;
    assert_eq!(error.reason, "worker_unreachable");
    assert_eq!(*numbers.begun.borrow(), 0);
    let mut answer = client.plane.open(served_next.address(), request(ENDLESS));
    read(&mut answer, 0..10).await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_is_unreachable() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let (server, client) = pair(&proxy).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    proxy.half_open();
    let mut peer = client.plane.peer(served.address());
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Lost));
    let error = failure(client.plane.open(served.address(), request(ENDLESS))).await;
    assert_eq!(error.reason, "worker_unreachable");
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_lost() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let (server, client) = pair(&proxy).await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;
    let mut answer = client.plane.open(served.address(), request(NOTHING));
    read(&mut answer, 0..1).await;
    proxy.half_open();
    let error = failure(answer).await;
    assert_eq!(error.reason, "worker_lost");
    numbers.run(0).await;
}
