//! Whole runs against a server of known behaviour. Times are only ever bounded from below: what
//! the server waits for, a request took at least.

#![allow(clippy::unwrap_used)]

mod failures;
mod loads;
mod server;
mod start;

use std::sync::Arc;

use forebay_bench::{BenchConfig, Error, Length, Measured, Synthetic, Workload};
use tokio_util::sync::CancellationToken;

use server::Server;

/// A small load without a warm-up.
fn config(server: &Server) -> BenchConfig {
    let mut config = BenchConfig::new(server.url().parse().unwrap());
    config.workload = synthetic(20, 4);
    config.requests = Some(12);
    config.warmup_requests = 0;
    config
}

fn synthetic(isl: u32, osl: u32) -> Workload {
    Workload::Synthetic(Synthetic {
        isl: Length::fixed(isl),
        osl: Length::fixed(osl),
        shared_prefix_tokens: 0,
    })
}

async fn run(config: &BenchConfig, server: &Server) -> Result<Measured, Error> {
    forebay_bench::run(
        config,
        &server.tasks,
        CancellationToken::new(),
        Arc::new(()),
    )
    .await
}
