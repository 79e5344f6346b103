//! `forebay serve`: a model, its workers and the frontend in one process.

mod banner;
mod question;

use std::io;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use forebay_frontend::command::make_room;
use forebay_frontend::{Frontend, ModelRegistry, Process};
use forebay_observability::{BuildInfo, Registry, Telemetry};
use forebay_runtime::{Health, Planes, Shutdown, TaskKind, Tasks, signals};
use forebay_worker::Worker;
use futures::StreamExt as _;
use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;

use self::banner::Banner;
use crate::config::ServeConfig;
use crate::models::Interrupted;

const BUILD: BuildInfo = BuildInfo {
    service: "forebay",
    version: env!("CARGO_PKG_VERSION"),
    revision: "",
};

/// Serves until a signal, and returns the exit code. `print` shows the user how to reach it.
pub(crate) async fn run(
    mut config: ServeConfig,
    print: impl FnOnce(&str) -> io::Result<()>,
) -> Result<u8> {
    let telemetry = Telemetry::install(&config.telemetry, &BUILD)?;
    config.frontend.max_connections = make_room(config.frontend.max_connections);
    // Nobody else is on the planes of this process.
    config.frontend.share_bookings = false;
    let metrics = Registry::for_process(&BUILD);
    let process = Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    };
    let (tasks, health) = (process.tasks.clone(), process.health.clone());
    let mut signals = signals()?;

    // What is wrong with the address is said before a model is fetched.
    probe(config.frontend.address())?;
    let engines = config.engines();
    let engines = engines.start(&tasks, &process.metrics, &mut signals).await;
    let engines = engines.map_err(Interrupted::or)?;
    let (card, load_time) = (engines.card.clone(), engines.load_time);

    let planes = Planes::in_process();
    let models = ModelRegistry::default();
    models.follow(
        &planes,
        &config.worker.namespace,
        &config.frontend,
        &process,
    )?;
    let workers = engines
        .specs()
        .map(|spec| Worker::start(&config.worker, spec, &planes, &tasks));
    // They are registered as long as they are held.
    let _workers = tokio::select! {
        workers = try_join_all(workers) => workers?,
        Some(signal) = signals.next() => return Err(Interrupted(signal).into()),
    };
    tokio::select! {
        _ = models.appears(&card.model) => {}
        amiss = health.amiss("models") => bail!("cannot serve {amiss}"),
        Some(signal) = signals.next() => return Err(Interrupted(signal).into()),
    }

    let frontend = Frontend::bind(&config.frontend, models, process).await?;
    let banner = Banner {
        version: BUILD.version,
        model: &card.model,
        context_length: card.engine.context_length,
        load_time,
        workers: config.workers.count.get(),
        engine: config.workers.engine.as_str(),
        router_mode: config.frontend.router.mode.to_string(),
        address: frontend.local_addr(),
    };
    tasks.spawn(
        TaskKind::Critical,
        "accept connections",
        frontend.run(CancellationToken::new()),
    );
    print(&banner.to_string())?;

    let report = Shutdown::new(config.shutdown)
        .flush("telemetry", move || telemetry.shutdown())
        .run_with(&tasks, &health, signals)
        .await;
    Ok(report.exit_code())
}

/// Fails if nothing can listen on `address` now.
fn probe(address: SocketAddr) -> Result<()> {
    let listening = std::net::TcpListener::bind(address);
    listening.with_context(|| format!("cannot listen on {address}"))?;
    Ok(())
}
