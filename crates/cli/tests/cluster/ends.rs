//! Processes that stop, end or are killed.

use forebay_testkit::http;

use crate::answer::{Completion, End, assert_complete, assert_typed, streams};
use crate::cluster::{Cluster, Frontend, Worker};
use crate::load::Load;
use crate::wait::{PATIENCE, until};

#[test]
fn the_only_worker_is_killed_and_clients_are_told() {
    kill_the_only_worker(&Cluster::new());
}

/// The only worker is killed, clients are told, and another one takes its place.
pub(crate) fn kill_the_only_worker(cluster: &Cluster) {
    let worker = cluster.worker(&[]);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 4, 5000);
    worker.child.kill();
    assert_typed(streams);
    frontend.until_workers(0);
    let refused = Completion::open(frontend.address, 10).map(Completion::end);
    assert!(matches!(refused, Err(End::Typed(_))), "{refused:?}");
    // Another takes its place.
    let _worker = cluster.worker(&[]);
    frontend.until_workers(1);
    let again = Completion::open(frontend.address, 10).unwrap();
    assert_eq!(again.end(), End::Complete);
}

#[test]
fn a_worker_is_killed_and_no_client_notices_where_there_is_another() {
    let cluster = Cluster::new();
    let killed = cluster.worker(&[]);
    let _other = cluster.worker(&[]);
    let frontend = cluster.frontend();
    frontend.until_workers(2);
    let load = Load::start(&[frontend.address], 8, 60);
    load.go_on_for(8);
    killed.child.kill();
    frontend.until_workers(1);
    load.go_on_for(16);
    load.finish().assert_all_complete();
}

#[test]
fn a_worker_that_stands_still_is_out_and_comes_back() {
    stand_still_beside_another(&Cluster::new());
}

/// One of two workers stands still for a while, and no client notices.
pub(crate) fn stand_still_beside_another(cluster: &Cluster) {
    let stopped = cluster.worker(&[]);
    let _other = cluster.worker(&[]);
    let frontend = cluster.frontend();
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
fn a_paused_worker_is_sent_nothing_and_keeps_what_it_has() {
    let cluster = Cluster::new();
    let worker = cluster.worker(&[]);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 2, 400);
    let control = |what| http::post(worker.status, what, "").unwrap().status;
    assert_eq!(control("/engine/pause"), 200);
    // At once as later: who is on the way is told, and so is who comes when nobody is there.
    for _ in 0..2 {
        let refused = Completion::open(frontend.address, 10).map(Completion::end);
        assert!(matches!(refused, Err(End::Typed(_))), "{refused:?}");
        frontend.until_workers(0);
    }
    assert_eq!(control("/engine/resume"), 200);
    assert_complete(streams);
    frontend.until_workers(1);
    let again = Completion::open(frontend.address, 10).unwrap();
    assert_eq!(again.end(), End::Complete);
}

#[test]
fn a_worker_is_asked_to_end_and_no_client_notices() {
    end_beside_another(&Cluster::new());
}

/// One of two workers is asked to end, and finishes what it has.
pub(crate) fn end_beside_another(cluster: &Cluster) {
    let mut leaving = cluster.worker(&[]);
    let _other = cluster.worker(&[]);
    let frontend = cluster.frontend();
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

#[test]
fn what_outlasts_the_grace_of_a_leaving_worker_goes_on_elsewhere() {
    let cluster = Cluster::new();
    let mut leaving = cluster.worker(&["--set", "shutdown.grace_seconds=0.2"]);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    // Each would take three seconds more.
    let streams = streams(frontend.address, 8, 500);
    let _other = cluster.worker(&[]);
    frontend.until_workers(2);
    leaving.child.terminate();
    assert_complete(streams);
    assert_eq!(frontend.retries(), 8);
    assert_eq!(leaving.child.wait_end(PATIENCE).code(), Some(0));
}

#[test]
fn what_outlasts_the_grace_of_the_only_worker_ends_with_a_typed_error() {
    let cluster = Cluster::new();
    let mut leaving = cluster.worker(&["--set", "shutdown.grace_seconds=0.2"]);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 4, 5000);
    leaving.child.terminate();
    assert_typed(streams);
    assert_eq!(leaving.child.wait_end(PATIENCE).code(), Some(0));
}

#[test]
fn workers_are_replaced_one_after_the_other_and_no_client_notices() {
    let cluster = Cluster::new();
    let mut workers = [cluster.worker(&[]), cluster.worker(&[])];
    let frontend = cluster.frontend();
    frontend.until_workers(2);
    let load = Load::start(&[frontend.address], 4, 40);
    for worker in &mut workers {
        load.go_on_for(4);
        let new = cluster.worker(&[]);
        frontend.until_workers(3);
        worker.child.terminate();
        assert_eq!(worker.child.wait_end(PATIENCE).code(), Some(0));
        frontend.until_workers(2);
        *worker = new;
    }
    load.finish().assert_all_complete();
}

#[test]
fn a_frontend_is_killed_and_its_blocks_are_free_on_every_worker() {
    let cluster = Cluster::new();
    let (workers, other) = kill_a_frontend(&cluster);
    for worker in &workers {
        until("nor its session is left", || {
            worker.metric("forebay_tcp_server_sessions") == 1.0
        });
    }
    let after = Completion::open(other.address, 10).unwrap();
    assert_eq!(after.end(), End::Complete);
}

/// One of two frontends is killed, and nothing of its streams is left on any worker. Gives the
/// workers and the other frontend.
pub(crate) fn kill_a_frontend(cluster: &Cluster) -> ([Worker; 3], Frontend) {
    // Of each answer in minutes.
    let slow = ["--set", "mocker.speed=0.1"];
    let workers = std::array::from_fn(|_| cluster.worker(&slow));
    let killed = cluster.frontend();
    let other = cluster.frontend();
    killed.until_workers(3);
    other.until_workers(3);
    let streams = streams(killed.address, 12, 5000);
    for worker in &workers {
        until("each has something to do", || worker.running() > 0.0);
        assert!(worker.active_blocks() > 0.0);
    }
    killed.child.kill();
    drop(streams);
    for worker in &workers {
        until("no stream of its is left", || {
            (worker.running(), worker.active_blocks()) == (0.0, 0.0)
        });
    }
    (workers, other)
}
