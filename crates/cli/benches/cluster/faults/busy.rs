//! A machine with more to do than it can: nobody is taken for dead, and who is, is noticed.

use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Busy, BusyShare, http};

use super::WORKERS;
use super::silence::{self, name};
use crate::cluster::{Cluster, Requests};
use crate::process::Process;
use crate::streams::request;
use crate::table::Table;

/// How long nothing may happen.
const TIME: Duration = Duration::from_secs(120);

/// Clients of each frontend, one answer after the other.
const CLIENTS: usize = 4;

/// A cluster of which nothing is wrong.
struct Healthy {
    cluster: Cluster,
    workers: Vec<Process>,
    frontend: Process,
}

pub(super) fn measure(planes: [Requests; 2], repeats: usize, table: &mut Table) {
    let clusters = planes.map(|requests| {
        let cluster = Cluster::new(requests);
        let workers = cluster.workers(WORKERS);
        let frontend = cluster.frontend();
        frontend.until_workers(WORKERS);
        Healthy {
            cluster,
            workers,
            frontend,
        }
    });
    let _busy = Busy::start(1);
    let share = BusyShare::start();
    let before = clusters.each_ref().map(Healthy::lost);
    let until = Instant::now() + TIME;
    let answers = thread::scope(|scope| {
        let clients = clusters.iter().flat_map(|healthy| [healthy; CLIENTS]);
        let clients = clients.map(|healthy| scope.spawn(|| answers(&healthy.frontend, until)));
        let clients: Vec<_> = clients.collect();
        let counts = clients.into_iter().map(|client| client.join());
        counts.sum::<Result<usize, _>>()
    });
    let answers = answers.expect("a client panics at nothing");
    let share = share.so_far() * 100.0;
    for (healthy, before) in clusters.iter().zip(before) {
        let requests = healthy.cluster.requests;
        table.put(
            &name(
                "healthy, the machine busy: sessions taken for dead",
                requests,
            ),
            "0",
            healthy.lost() - before,
        );
        let moved = healthy.frontend.metric("forebay_frontend_retries_total");
        assert_eq!(moved, 0.0, "nothing fails");
    }
    table.note(format!(
        "Healthy for {} s: 2 x {WORKERS} worker processes; the machine was {share:.0} % busy; \
         {answers} answers of 60 tokens, all complete.",
        TIME.as_secs()
    ));
    for _ in 0..repeats {
        for Healthy {
            cluster,
            workers,
            frontend,
        } in &clusters
        {
            table.extend(
                &name(
                    "SIGSTOP of a worker, the machine busy: it is out",
                    cluster.requests,
                ),
                silence::GOAL,
                silence::sigstop(frontend, workers),
            );
        }
    }
}

impl Healthy {
    /// Sessions that any of its processes has given up, for whatever reason.
    fn lost(&self) -> f64 {
        let everyone = self.workers.iter().chain([&self.frontend]);
        let lost = everyone.map(|process| {
            let of = |plane| process.metric(plane);
            of("forebay_tcp_client_lost_total")
                + of("forebay_tcp_server_lost_total")
                + of("forebay_nats_client_lost_total")
                + of("forebay_nats_server_lost_total")
        });
        lost.sum()
    }
}

/// Asks again and again, and counts the answers, each of which must be whole.
fn answers(frontend: &Process, until: Instant) -> usize {
    let mut count = 0;
    while Instant::now() < until {
        let answer = http::post(frontend.address, "/v1/completions", &request(60));
        let body = answer.expect("it answers").body;
        assert!(body.trim_end().ends_with("[DONE]"), "{body}");
        count += 1;
    }
    count
}
