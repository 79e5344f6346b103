//! Workers and frontends that are replaced while long answers run.

use forebay_testkit::http;

use crate::answer::{assert_complete, streams};
use crate::cluster::{Cluster, Frontend};
use crate::wait::{PATIENCE, until};

/// A worker of slow answers, which moves them when it is asked to end.
const SLOW: [&str; 4] = [
    "--set",
    "mocker.speed=0.5",
    "--set",
    "shutdown.grace_seconds=0.2",
];

/// Asks a frontend to end, and waits until it takes no one in.
fn drain(frontend: &Frontend) {
    frontend.child.terminate();
    until("it takes no new clients", || {
        http::get(frontend.address, "/live").is_err()
    });
}

#[test]
fn an_answer_outlives_any_number_of_workers() {
    let cluster = Cluster::new();
    let mut worker = cluster.worker(&SLOW);
    let frontend = cluster.frontend();
    frontend.until_workers(1);
    let mut streams = streams(frontend.address, 2, 5000);
    for replaced in 1..=5 {
        let new = cluster.worker(&SLOW);
        frontend.until_workers(2);
        worker.child.terminate();
        assert_eq!(worker.child.wait_end(PATIENCE).code(), Some(0));
        until("the answers have moved", || {
            frontend.retries() == 2 * replaced
        });
        until("they go on", || new.running() == 2.0);
        worker = new;
    }
    for stream in &mut streams {
        // More than five workers can have said.
        stream.read(1000).unwrap();
    }
}

#[test]
fn a_frontend_that_drains_moves_its_answers_to_workers_that_come() {
    let cluster = Cluster::new();
    let leaving = cluster.worker(&SLOW);
    let mut frontend = cluster.frontend();
    frontend.until_workers(1);
    let streams = streams(frontend.address, 3, 300);
    drain(&frontend);
    let _new = cluster.worker(&[]);
    until("it knows the new one", || {
        frontend.child.output().matches("worker joined").count() == 2
    });
    leaving.child.terminate();
    assert_complete(streams);
    assert_eq!(frontend.child.wait_end(PATIENCE).code(), Some(0));
}

#[test]
fn what_a_draining_frontend_has_sent_is_known_to_the_others_until_it_ends() {
    let cluster = Cluster::new();
    let _worker = cluster.worker(&SLOW);
    let (mut leaving, staying) = (cluster.frontend(), cluster.frontend());
    leaving.until_workers(1);
    staying.until_workers(1);
    let known = |what: &str| staying.metric(&format!("forebay_frontend_{what}"));
    until("they know each other", || known("replicas_in_step") == 1.0);
    let mut streams = streams(leaving.address, 4, 5000);
    until("they are booked", || known("replica_bookings") == 4.0);
    drain(&leaving);
    until("the other one knows", || {
        staying.child.output().contains("frontend drains")
    });
    assert_eq!((known("replicas"), known("replica_bookings")), (1.0, 4.0));
    // What becomes of them is still told.
    streams.pop();
    until("one has ended", || known("replica_bookings") == 3.0);
    drop(streams);
    assert_eq!(leaving.child.wait_end(PATIENCE).code(), Some(0));
    until("nothing of it is left", || {
        (known("replicas"), known("replica_bookings")) == (0.0, 0.0)
    });
}
