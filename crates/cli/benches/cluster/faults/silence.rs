//! Processes that stand still, and networks that carry nothing one way.

use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Direction, FaultProxy};

use super::WORKERS;
use crate::cluster::{Cluster, Requests};
use crate::process::Process;
use crate::table::Table;

/// How soon a silent death is to be noticed.
pub(super) const GOAL: &str = "<= 1,500 at p99";

pub(super) fn measure(requests: Requests, repeats: usize, table: &mut Table) {
    let cluster = Cluster::new(requests);
    let proxies: Vec<_> = (0..WORKERS)
        .map(|_| FaultProxy::to_nowhere().expect("a port"))
        .collect();
    let workers = cluster.workers_behind(&proxies);
    let frontend = cluster.frontend();
    frontend.until_workers(WORKERS);
    // Over NATS the server is what a worker's connections lead to.
    let (to_frontend, to_worker) = match requests {
        Requests::Tcp => (Direction::ToClient, Direction::ToTarget),
        Requests::Nats(_) => (Direction::ToTarget, Direction::ToClient),
    };
    for repeat in 0..repeats {
        // Heartbeats are not in step with what is done to them.
        thread::sleep(Duration::from_millis(300 + 41 * repeat as u64));
        let name = name("SIGSTOP of a worker: it is out", requests);
        table.extend(&name, GOAL, sigstop(&frontend, &workers));
        for (what, direction) in [
            (
                "silence towards the frontend: the worker is out",
                to_frontend,
            ),
            ("silence towards the worker: it is out", to_worker),
        ] {
            let began = Instant::now();
            proxies.iter().for_each(|proxy| proxy.stall(direction));
            let name = self::name(what, requests);
            table.extend(&name, GOAL, frontend.losses(began, WORKERS));
            proxies.iter().for_each(FaultProxy::pass);
            frontend.until_workers(WORKERS);
        }
    }
}

/// Stops all workers, and lets them go on when they are out.
pub(super) fn sigstop(frontend: &Process, workers: &[Process]) -> Vec<f64> {
    let began = Instant::now();
    workers.iter().for_each(|worker| worker.child.stop());
    let losses = frontend.losses(began, workers.len());
    workers.iter().for_each(|worker| worker.child.resume());
    frontend.until_workers(workers.len());
    losses
}

/// A row's name.
pub(super) fn name(what: &str, requests: Requests) -> String {
    format!("{what} ({})", requests.name())
}
