//! Processes that stop, end or are killed.

use forebay_testkit::http;

use crate::answer::{Completion, End};
use crate::cluster::{Cluster, Frontend};
use crate::load::Load;
use crate::wait::{PATIENCE, until};

/// Streams of so many tokens, each of which has begun.
fn streams(frontend: &Frontend, count: usize, tokens: usize) -> Vec<Completion> {
    let open = |_| {
        let mut stream = Completion::open(frontend.address, tokens).unwrap();
        stream.read(10).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn the_only_worker_is_killed_and_clients_are_told() {
    let cluster = Cluster::new();
    let worker = cluster.worker(&[]);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(&frontend, 4, 1000);
    worker.child.kill();
    for stream in streams {
        let end = stream.end();
        assert!(matches!(end, End::Typed(_)), "{end:?}");
    }
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
    let cluster = Cluster::new();
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
    let streams = streams(&frontend, 2, 400);
    let control = |what| http::post(worker.status, what, "").unwrap().status;
    assert_eq!(control("/engine/pause"), 200);
    // At once as later: who is on the way is told, and so is who comes when nobody is there.
    for _ in 0..2 {
        let refused = Completion::open(frontend.address, 10).map(Completion::end);
        assert!(matches!(refused, Err(End::Typed(_))), "{refused:?}");
        frontend.until_workers(0);
    }
    assert_eq!(control("/engine/resume"), 200);
    for stream in streams {
        assert_eq!(stream.end(), End::Complete);
    }
    frontend.until_workers(1);
    let again = Completion::open(frontend.address, 10).unwrap();
    assert_eq!(again.end(), End::Complete);
}

#[test]
fn a_worker_is_asked_to_end_and_no_client_notices() {
    let cluster = Cluster::new();
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
    // It finished what it had.
    assert_eq!(frontend.retries(), 0);
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
fn a_frontend_is_killed_and_what_it_held_is_free() {
    let cluster = Cluster::new();
    // Nobody else gets in before these answers end, which is in minutes.
    let full = [
        "--set",
        "mocker.max_sequences=8",
        "--set",
        "mocker.speed=0.1",
    ];
    let workers = [cluster.worker(&full), cluster.worker(&full)];
    let killed = cluster.frontend();
    let other = cluster.frontend();
    killed.until_workers(2);
    other.until_workers(2);
    let streams = streams(&killed, 16, 5000);
    killed.child.kill();
    drop(streams);
    let after: Vec<_> = (0..16)
        .map(|_| Completion::open(other.address, 10).unwrap())
        .collect();
    for completion in after {
        assert_eq!(completion.end(), End::Complete);
    }
    for worker in &workers {
        until("no stream of its is left", || {
            worker.metric("forebay_tcp_server_sessions") == 1.0
        });
    }
}
