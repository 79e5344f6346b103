//! Requests by NATS, where no connection leads from one process to the other.

use forebay_testkit::{Direction, FaultProxy, NatsServer};

use crate::answer::{assert_complete, assert_typed, streams};
use crate::cluster::{Cluster, Worker};
use crate::wait::until;
use crate::{connections, ends};

/// A server and processes that talk by it.
struct ByNats {
    nats: NatsServer,
    cluster: Cluster,
}

impl ByNats {
    fn start() -> Self {
        let nats = NatsServer::start();
        let cluster = Cluster::with(&["--requests", &nats.url()]);
        Self { nats, cluster }
    }

    /// A worker that reaches the server through a proxy. They find each other as the others do.
    fn worker_behind(&self, proxy: &FaultProxy) -> Worker {
        proxy.set_target(([127, 0, 0, 1], self.nats.port()).into());
        let url = format!("nats://{}", proxy.address());
        self.cluster.worker_on(&["--requests", &url])
    }
}

#[test]
fn the_only_worker_is_killed_and_clients_are_told() {
    let by_nats = ByNats::start();
    let worker = by_nats.cluster.worker(&[]);
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 4, 5000);
    worker.child.kill();
    assert_typed(streams);
    frontend.until_workers(0);
}

#[test]
fn a_worker_stands_still_and_no_client_notices_where_there_is_another() {
    ends::stand_still_beside_another(&ByNats::start().cluster);
}

#[test]
fn a_worker_is_asked_to_end_and_no_client_notices() {
    ends::end_beside_another(&ByNats::start().cluster);
}

/// One way between a worker and the server is silent; a client hears of it, and it is mended.
#[track_caller]
fn lost_and_found(direction: Direction) {
    let by_nats = ByNats::start();
    let proxy = FaultProxy::to_nowhere().unwrap();
    let _worker = by_nats.worker_behind(&proxy);
    connections::lose_and_find(&by_nats.cluster, &proxy, |proxy| proxy.stall(direction));
}

#[test]
fn a_worker_that_is_not_heard_is_noticed() {
    lost_and_found(Direction::ToTarget);
}

#[test]
fn a_worker_that_hears_nothing_is_noticed() {
    lost_and_found(Direction::ToClient);
}

#[test]
fn a_connection_to_the_server_is_cut_and_nothing_is_computed_again() {
    let by_nats = ByNats::start();
    let proxy = FaultProxy::to_nowhere().unwrap();
    let _worker = by_nats.worker_behind(&proxy);
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 8, 250);
    proxy.cut();
    assert_complete(streams);
    assert_eq!((frontend.retries(), frontend.workers()), (0, 1));
}

#[test]
fn a_frontend_is_killed_and_its_blocks_are_free_on_every_worker() {
    let by_nats = ByNats::start();
    let slow = ["--set", "mocker.speed=0.1"];
    let workers: [_; 2] = std::array::from_fn(|_| by_nats.cluster.worker(&slow));
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(2);
    let streams = streams(frontend.address, 8, 5000);
    for worker in &workers {
        until("each has something to do", || worker.running() > 0.0);
    }
    frontend.child.kill();
    drop(streams);
    for worker in &workers {
        until("no stream of its is left", || {
            (worker.running(), worker.active_blocks()) == (0.0, 0.0)
        });
    }
}
