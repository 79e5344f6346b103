//! What frontends know of the workers' KV caches.

use std::time::Instant;

use forebay_testkit::{LossyNats, NatsServer};

use crate::cluster::{Cluster, Requests};
use crate::process::{Process, each};
use crate::streams::{End, Streams};
use crate::table::Table;

/// Blocks that the workers hold.
pub(super) fn truth(workers: &[Process]) -> f64 {
    let held = workers.iter().map(|worker| {
        worker.metric("forebay_worker_kv_cached_blocks")
            + worker.metric("forebay_worker_kv_active_blocks")
    });
    held.sum()
}

/// Whether a frontend knows of so many, and of nothing that it misses.
pub(super) fn is_exact(frontend: &Process, truth: f64) -> bool {
    frontend.metric("forebay_frontend_router_index_blocks") == truth
        && frontend.metric("forebay_frontend_kv_inexact_workers") == 0.0
}

/// One event in ten is lost.
pub(super) fn lossy(repeats: usize, table: &mut Table) {
    let nats = NatsServer::start();
    let lossy = LossyNats::to(nats.port(), "forebay.ev.", 10).expect("a port");
    let cluster = Cluster::new(Requests::Tcp).with_events(&lossy.url());
    let workers = cluster.workers(4);
    let frontends = [0; 4].map(|_| cluster.frontend());
    frontends.iter().for_each(|each| each.until_workers(4));
    for _ in 0..repeats {
        for _ in 0..5 {
            for seen in Streams::open(frontends[0].address, 40, 60).ends() {
                assert_eq!(seen.end, End::Complete);
            }
        }
        let ended = Instant::now();
        let truth = truth(&workers);
        let name = "1 in 10 events lost: a frontend's index is what the workers hold";
        let times = each(ended, &frontends, |frontend| is_exact(frontend, truth));
        table.extend(name, "<= 1,000", times);
    }
    let repairs: f64 = (frontends.iter())
        .map(|frontend| frontend.metric("forebay_frontend_kv_repairs_total"))
        .sum();
    table.note(format!(
        "{} events were lost on the way to 4 frontends, which made up for them by {repairs} repairs.",
        lossy.lost()
    ));
}
