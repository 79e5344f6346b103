//! Processes that end in order.

use std::sync::Arc;

use forebay_runtime::{
    Health, PeerState, RequestPlane as _, Shutdown, ShutdownCause, ShutdownConfig, TcpConfig,
};
use futures::{FutureExt as _, StreamExt as _};

use crate::in_time;
use crate::numbers::{NOTHING, Numbers, failure, read, request};
use crate::process::Process;

#[tokio::test]
async fn a_process_that_shuts_down_waits_for_its_streams_and_for_nothing_else() {
    let server = Process::start(TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut peer = client.plane.peer(served.address());
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));
    let mut answer = client.plane.open(served.address(), request(NOTHING));
    read(&mut answer, 0..1).await;

    server
        .tasks
        .begin_shutdown(ShutdownCause::Requested("the test's end"));
    let health = Health::new();
    let mut ending = Shutdown::new(ShutdownConfig::default())
        .run(&server.tasks, &health)
        .boxed();
    let drain = served.drain();
    let told = async {
        assert_eq!(peer.next().await, Some(PeerState::Draining));
        drop(answer);
    };
    let drained = futures::future::join(drain, told);
    in_time(futures::future::select(drained.boxed_local(), &mut ending)).await;
    let report = in_time(ending).await.unwrap();
    assert!(report.drained, "{report:?}");
    assert!(report.unfinished.is_empty(), "{report:?}");
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Lost));

    // A client's watches do not hold up its end.
    let report = Shutdown::new(ShutdownConfig::default());
    client
        .tasks
        .begin_shutdown(ShutdownCause::Requested("the test's end"));
    let report = in_time(report.run(&client.tasks, &health)).await.unwrap();
    assert!(report.drained && report.unfinished.is_empty(), "{report:?}");
    assert!(peer.next().now_or_never().is_none());
}

#[tokio::test]
async fn who_drains_says_so_before_anything_else() {
    let server = Process::start(TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let other = server.serve(2, Arc::new(Numbers::new())).await;
    let mut peer = client.plane.peer(served.address());
    let mut of_other = client.plane.peer(other.address());
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));
    assert_eq!(in_time(of_other.next()).await, Some(PeerState::Reachable));
    // Nothing runs, so it is gone at once.
    in_time(served.drain()).await;
    drop(served);
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Draining));
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Lost));
    assert!(of_other.next().now_or_never().is_none(), "it goes on");
    // What is served again is seen again.
    let again = server.serve(1, Arc::new(Numbers::new())).await;
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));
    let mut answer = client.plane.open(again.address(), request(NOTHING));
    read(&mut answer, 0..1).await;
}

#[tokio::test]
async fn a_process_that_begins_to_stop_says_so_to_all() {
    let server = Process::start(TcpConfig::default()).await;
    let client = Process::start(TcpConfig::default()).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut peer = client.plane.peer(served.address());
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));
    let mut answer = client.plane.open(served.address(), request(NOTHING));
    read(&mut answer, 0..1).await;
    server
        .tasks
        .begin_shutdown(ShutdownCause::Requested("the test's end"));
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Draining));
    let late = Process::start(TcpConfig::default()).await;
    for process in [&client, &late] {
        let refused = process.plane.open(served.address(), request(NOTHING));
        assert_eq!(failure(refused).await.reason, "worker_stopped");
    }
    let mut seen_late = late.plane.peer(served.address());
    assert_eq!(in_time(seen_late.next()).await, Some(PeerState::Draining));
    assert!(answer.next().now_or_never().is_none(), "it goes on");
}
