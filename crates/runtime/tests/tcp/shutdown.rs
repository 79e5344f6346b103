//! Processes that end in order.

use std::sync::Arc;

use forebay_runtime::{
    Health, PeerState, RequestPlane as _, Shutdown, ShutdownCause, ShutdownConfig, TcpConfig,
};
use futures::{FutureExt as _, StreamExt as _};

use crate::in_time;
use crate::numbers::{NOTHING, Numbers, read, request};
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
