//! What happens to connections between a frontend and a worker.

use forebay_testkit::{Direction, FaultProxy};

use crate::answer::{Completion, End, assert_complete, assert_typed, streams};
use crate::cluster::{Cluster, Worker};
use crate::load::Load;

/// A worker that the frontend reaches through a proxy.
fn behind_a_proxy(cluster: &Cluster) -> (FaultProxy, Worker) {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let worker = cluster.worker_behind(&proxy);
    (proxy, worker)
}

#[test]
fn a_cut_connection_goes_on_and_nothing_is_computed_again() {
    let cluster = Cluster::new();
    let (proxy, _worker) = behind_a_proxy(&cluster);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 8, 250);
    let connections = proxy.accepted();
    for _ in 0..3 {
        proxy.cut();
    }
    assert_complete(streams);
    assert!(proxy.accepted() > connections);
    assert_eq!((frontend.retries(), frontend.workers()), (0, 1));
}

/// `fault` makes the only worker unreachable in some way; a client hears of it, and `pass` mends it.
#[track_caller]
fn lost_and_found(fault: impl FnOnce(&FaultProxy)) {
    let cluster = Cluster::new();
    let (proxy, _worker) = behind_a_proxy(&cluster);
    lose_and_find(&cluster, &proxy, fault);
}

/// The same for a cluster whose only worker is behind this proxy.
#[track_caller]
pub(crate) fn lose_and_find(
    cluster: &Cluster,
    proxy: &FaultProxy,
    fault: impl FnOnce(&FaultProxy),
) {
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    // They would take more than half a minute.
    let streams = streams(frontend.address, 4, 5000);
    fault(proxy);
    assert_typed(streams);
    frontend.until_workers(0);
    proxy.pass();
    frontend.until_workers(1);
    let again = Completion::open(frontend.address, 10).unwrap();
    assert_eq!(again.end(), End::Complete);
}

#[test]
fn a_network_that_is_silent_both_ways_is_noticed() {
    lost_and_found(|proxy| {
        proxy.stall(Direction::ToTarget);
        proxy.stall(Direction::ToClient);
    });
}

#[test]
fn a_network_that_is_silent_towards_the_worker_is_noticed() {
    lost_and_found(|proxy| proxy.stall(Direction::ToTarget));
}

#[test]
fn a_network_that_is_silent_towards_the_frontend_is_noticed() {
    lost_and_found(|proxy| proxy.stall(Direction::ToClient));
}

#[test]
fn connections_that_are_half_open_are_noticed() {
    lost_and_found(FaultProxy::half_open);
}

#[test]
fn a_worker_that_refuses_connections_is_out() {
    lost_and_found(FaultProxy::refuse);
}

#[test]
fn bytes_that_vanish_are_noticed() {
    let cluster = Cluster::new();
    let (proxy, _worker) = behind_a_proxy(&cluster);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 4, 250);
    proxy.drop_bytes(Direction::ToClient, 10);
    for stream in streams {
        // Whatever it ends with, no token of it is wrong.
        let end = stream.end();
        assert!(!matches!(end, End::Broken(_)), "{end:?}");
    }
    frontend.until_workers(1);
    let again = Completion::open(frontend.address, 10).unwrap();
    assert_eq!(again.end(), End::Complete);
}

#[test]
fn streams_of_a_lost_worker_go_on_at_another() {
    let cluster = Cluster::new();
    let (proxy, _lost) = behind_a_proxy(&cluster);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 4, 500);
    let _other = cluster.worker(&[]);
    frontend.until_workers(2);
    proxy.stall(Direction::ToClient);
    assert_complete(streams);
    assert!(frontend.retries() >= 4);
    frontend.until_workers(1);
}

#[test]
fn a_worker_that_accepts_and_never_answers_gets_nothing() {
    let cluster = Cluster::new();
    let (proxy, _mute) = behind_a_proxy(&cluster);
    proxy.half_open();
    let _good = cluster.worker(&[]);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let load = Load::start(&[frontend.address], 4, 20);
    load.go_on_for(20);
    load.finish().assert_all_complete();
    assert_eq!(frontend.workers(), 1);
}
