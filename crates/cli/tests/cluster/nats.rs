//! Requests by NATS, where no connection leads from one process to the other.

use forebay_testkit::{Direction, FaultProxy, NatsServer};

use crate::answer::{Completion, End};
use crate::cluster::{Cluster, Frontend, Worker};
use crate::load::Load;
use crate::wait::{PATIENCE, until};

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

/// Streams of so many tokens, each of which has begun.
fn streams(frontend: &Frontend, count: usize, tokens: usize) -> Vec<Completion> {
    let open = |_| {
        let mut stream = Completion::open(frontend.address, tokens).unwrap();
        stream.read(10).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

#[track_caller]
fn assert_typed(streams: Vec<Completion>) {
    for stream in streams {
        let end = stream.end();
        assert!(matches!(end, End::Typed(_)), "{end:?}");
    }
}

#[test]
fn the_only_worker_is_killed_and_clients_are_told() {
    let by_nats = ByNats::start();
    let worker = by_nats.cluster.worker(&[]);
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(&frontend, 4, 5000);
    worker.child.kill();
    assert_typed(streams);
    frontend.until_workers(0);
}

#[test]
fn a_worker_stands_still_and_no_client_notices_where_there_is_another() {
    let by_nats = ByNats::start();
    let stopped = by_nats.cluster.worker(&[]);
    let _other = by_nats.cluster.worker(&[]);
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(2);
    let load = Load::start(&[frontend.address], 8, 60);
    load.go_on_for(8);
    stopped.child.stop();
    frontend.until_workers(1);
    load.go_on_for(16);
    stopped.child.resume();
    frontend.until_workers(2);
    load.go_on_for(16);
    load.finish().assert_all_complete();
}

#[test]
fn a_worker_is_asked_to_end_and_no_client_notices() {
    let by_nats = ByNats::start();
    let mut leaving = by_nats.cluster.worker(&[]);
    let _other = by_nats.cluster.worker(&[]);
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(2);
    let load = Load::start(&[frontend.address], 8, 60);
    load.go_on_for(8);
    leaving.child.terminate();
    assert_eq!(leaving.child.wait_end(PATIENCE).code(), Some(0));
    frontend.until_workers(1);
    load.go_on_for(16);
    load.finish().assert_all_complete();
    assert_eq!(frontend.retries(), 0);
}

/// One way between a worker and the server is silent; a client hears of it, and it is mended.
#[track_caller]
fn lost_and_found(direction: Direction) {
    let by_nats = ByNats::start();
    let proxy = FaultProxy::to_nowhere().unwrap();
    let _worker = by_nats.worker_behind(&proxy);
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(&frontend, 4, 5000);
    proxy.stall(direction);
    assert_typed(streams);
    frontend.until_workers(0);
    proxy.pass();
    frontend.until_workers(1);
    let again = Completion::open(frontend.address, 10).unwrap();
    assert_eq!(again.end(), End::Complete);
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
    let streams = streams(&frontend, 8, 250);
    proxy.cut();
    for stream in streams {
        assert_eq!(stream.end(), End::Complete);
    }
    assert_eq!((frontend.retries(), frontend.workers()), (0, 1));
}

#[test]
fn a_frontend_is_killed_and_its_blocks_are_free_on_every_worker() {
    let by_nats = ByNats::start();
    let slow = ["--set", "mocker.speed=0.1"];
    let workers: [_; 2] = std::array::from_fn(|_| by_nats.cluster.worker(&slow));
    let frontend = by_nats.cluster.frontend();
    frontend.until_workers(2);
    let streams = streams(&frontend, 8, 5000);
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
