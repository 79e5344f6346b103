//! Connections that are cut and may be made again at once.

use std::time::{Duration, Instant};

use forebay_testkit::FaultProxy;

use super::WORKERS;
use crate::cluster::{Cluster, Requests};
use crate::streams::{End, Streams};
use crate::table::Table;

/// Tokens of a stream, one every 6 ms.
const TOKENS: usize = 200;

/// How long the cut is looked for in a stream.
const AFTER: Duration = Duration::from_millis(500);

pub(super) fn measure(repeats: usize, table: &mut Table) {
    let cluster = Cluster::new(Requests::Tcp);
    let proxies: Vec<_> = (0..WORKERS)
        .map(|_| FaultProxy::to_nowhere().expect("a port"))
        .collect();
    let _workers = cluster.workers_behind(&proxies);
    let frontend = cluster.frontend();
    frontend.until_workers(WORKERS);
    for _ in 0..repeats {
        let began = Instant::now();
        let streams = Streams::open(frontend.address, WORKERS, TOKENS);
        let cut = Instant::now();
        proxies.iter().for_each(FaultProxy::cut);
        for seen in streams.ends() {
            assert_eq!(seen.end, End::Complete);
            let usual = seen.longest_pause(began, cut - began);
            table.put(
                "longest pause between tokens at 6 ms each, nothing cut",
                "-",
                usual,
            );
            table.put(
                "the same where the connection is cut: every stream goes on",
                "<= 1,000",
                seen.longest_pause(cut, AFTER),
            );
        }
    }
    let moved = frontend.metric("forebay_frontend_retries_total");
    assert_eq!(moved, 0.0, "no stream is computed anew elsewhere");
}
