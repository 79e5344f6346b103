//! Processes that are killed.

use std::time::Instant;

use super::WORKERS;
use super::silence::name;
use crate::cluster::{Cluster, Requests};
use crate::process::{Process, each};
use crate::streams::{End, Streams};
use crate::table::Table;

/// Tokens of an answer that does not end by itself while it is measured.
const ENDLESS: usize = 5000;

pub(super) fn measure(requests: Requests, repeats: usize, table: &mut Table) {
    let cluster = Cluster::new(requests);
    let frontend = cluster.frontend();
    for _ in 0..repeats {
        workers_out(&cluster, &frontend, table);
        clients_told(&cluster, &frontend, table);
        frontend_killed(&cluster, table);
    }
}

/// All workers are killed: each is out of selection.
fn workers_out(cluster: &Cluster, frontend: &Process, table: &mut Table) {
    let workers = cluster.workers(WORKERS);
    frontend.until_workers(WORKERS);
    let began = Instant::now();
    workers.iter().for_each(|worker| worker.child.kill());
    let goal = match cluster.requests {
        Requests::Tcp => "at once",
        // There is no connection whose end would tell.
        Requests::Nats(_) => super::silence::GOAL,
    };
    table.extend(
        &name("kill -9 of a worker: it is out", cluster.requests),
        goal,
        frontend.losses(began, WORKERS),
    );
}

/// The only worker is killed: each client is told.
fn clients_told(cluster: &Cluster, frontend: &Process, table: &mut Table) {
    let worker = cluster.worker(1);
    frontend.until_workers(1);
    let streams = Streams::open(frontend.address, WORKERS, ENDLESS);
    let began = Instant::now();
    worker.child.kill();
    let told = streams.ends().into_iter().map(|seen| {
        assert_eq!(seen.end, End::Typed);
        (seen.ended - began).as_secs_f64() * 1e3
    });
    table.extend(
        &name(
            "kill -9 of the only worker: a stream ends with a typed error",
            cluster.requests,
        ),
        super::silence::GOAL,
        told,
    );
    frontend.until_workers(0);
}

/// A frontend with streams at every worker is killed: each worker has its blocks back.
fn frontend_killed(cluster: &Cluster, table: &mut Table) {
    let workers = cluster.workers(WORKERS);
    let frontend = cluster.frontend();
    frontend.until_workers(WORKERS);
    let streams = Streams::open(frontend.address, 2 * WORKERS, ENDLESS);
    let holds = |worker: &Process| worker.metric("forebay_worker_kv_active_blocks") > 0.0;
    assert!(workers.iter().all(holds), "the streams are everywhere");
    let began = Instant::now();
    frontend.child.kill();
    let times = each(began, &workers, |worker| !holds(worker));
    table.extend(
        &name(
            "kill -9 of a frontend: a worker has its blocks back",
            cluster.requests,
        ),
        super::silence::GOAL,
        times,
    );
    for seen in streams.ends() {
        assert_eq!(seen.end, End::Broken);
    }
}
