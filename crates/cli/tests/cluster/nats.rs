//! Requests by NATS, where no connection leads from one process to the other.

use forebay_testkit::{Direction, FaultProxy, NatsServer};

use crate::answer::{assert_complete, streams};
use crate::cluster::{Cluster, Worker};
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
    ends::kill_the_only_worker(&ByNats::start().cluster);
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
    ends::kill_a_frontend(&ByNats::start().cluster);
}
