//! `forebay serve`: a model, its workers and the frontend in one process.

mod banner;
mod engines;
mod text;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use forebay_engine::remote::{WorkerCard, engine_endpoint};
use forebay_frontend::{
    Frontend, ModelRegistry, Process, SamplingDefaults, ServedModel, WorkerPool,
};
use forebay_model_store::{ModelRef, PulledModel, catalog};
use forebay_observability::{BuildInfo, Registry, Telemetry};
use forebay_runtime::{Health, Planes, Shutdown, Signal, TaskKind, Tasks, signals};
use forebay_tokens::WorkerId;
use forebay_worker::{Worker, WorkerSpec};
use futures::future::try_join_all;
use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use self::banner::Banner;
use self::engines::Engines;
use crate::config::{DEFAULT_MODEL, EngineKind, ServeConfig};
use crate::descriptors;
use crate::models::{self, Interrupted};

const BUILD: BuildInfo = BuildInfo {
    service: "forebay",
    version: env!("CARGO_PKG_VERSION"),
    revision: "",
};

/// Serves until a signal, and returns the exit code. `print` shows the user how to reach it.
pub(crate) async fn run(
    mut config: ServeConfig,
    print: impl FnOnce(&str) -> Result<()>,
) -> Result<u8> {
    let telemetry = Telemetry::install(&config.telemetry, &BUILD)?;
    config.frontend.max_connections = descriptors::make_room(config.frontend.max_connections);
    let metrics = Registry::for_process(&BUILD);
    let process = Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    };
    let mut signals = signals()?;

    // What is wrong with the address is said before a model is fetched.
    probe(config.frontend.address())?;
    let file = model_file(&config, &mut signals).await?;
    let name = match (&config.served_model_name, &file) {
        (Some(name), _) => name.clone(),
        (None, Some(file)) => default_name(file),
        (None, None) => "mocker".to_owned(),
    };

    let began = Instant::now();
    let Engines { text, engines } = tokio::select! {
        engines = start_engines(&name, &config, file.as_ref(), &process) => engines?,
        Some(signal) = signals.next() => return Err(Interrupted(signal).into()),
    };
    let load_time = began.elapsed();

    let pool = WorkerPool::new(engines[0].info().clone(), &config.frontend.router)?;
    let mut model = ServedModel::pooled(&name, text.tokenizer, pool.clone())
        .with_sampling_defaults(sampling(&config, file.as_ref()))?;
    if let Some(template) = text.template {
        model = model.with_template(template);
    }
    let banner = Banner {
        version: BUILD.version,
        model: &name,
        context_length: pool.model().context_length,
        load_time,
        workers: engines.len(),
        engine: config.workers.engine.as_str(),
        router_mode: config.frontend.router.mode.to_string(),
        address: config.frontend.address(),
    };
    let tasks = process.tasks.clone();
    let planes = Planes::in_process();
    let workers = (1..).map(WorkerId).zip(engines).map(|(id, engine)| {
        let spec = WorkerSpec {
            id,
            card: WorkerCard::new(&name, engine.info().clone()),
            artefacts: Arc::default(),
            engine,
            condition: None,
        };
        Worker::start(&config.worker, spec, &planes, &tasks)
    });
    // They are registered as long as they are held.
    let _workers = tokio::select! {
        workers = try_join_all(workers) => workers?,
        Some(signal) = signals.next() => return Err(Interrupted(signal).into()),
    };
    pool.follow(
        &planes,
        engine_endpoint(&config.worker.namespace)?,
        &name,
        &tasks,
    );

    let health = process.health.clone();
    let models = ModelRegistry::new([model])?;
    let frontend = Frontend::bind(&config.frontend, models, process).await?;
    let address = frontend.local_addr();
    tasks.spawn(
        TaskKind::Critical,
        "accept connections",
        frontend.run(CancellationToken::new()),
    );
    print(&Banner { address, ..banner }.to_string())?;

    let report = Shutdown::new(config.shutdown)
        .flush("telemetry", move || telemetry.shutdown())
        .run_with(&tasks, &health, signals)
        .await;
    Ok(report.exit_code())
}

/// The model's file; mockers have none unless one was asked for.
async fn model_file(
    config: &ServeConfig,
    signals: &mut (impl Stream<Item = Signal> + Unpin),
) -> Result<Option<PulledModel>> {
    let model = match (&config.model, config.workers.engine) {
        (Some(model), _) => model,
        (None, EngineKind::Native) => DEFAULT_MODEL,
        (None, EngineKind::Mocker) => return Ok(None),
    };
    let reference = ModelRef::parse(model)?;
    let store = models::store(config.cache_dir.clone())?;
    models::pull(store, reference, signals).await.map(Some)
}

async fn start_engines(
    name: &str,
    config: &ServeConfig,
    file: Option<&PulledModel>,
    process: &Process,
) -> Result<Engines> {
    let count = config.workers.count;
    let path: Option<PathBuf> = file.map(|file| file.path.clone());
    let (name, engine, mocker) = (
        name.to_owned(),
        config.engine.clone(),
        config.mocker.clone(),
    );
    let (kind, started_in) = (config.workers.engine, process.clone());
    let runtime = tokio::runtime::Handle::current();
    // Work that has begun goes on when nobody waits for it: a signal ends it at the next engine.
    let cancel = CancellationToken::new();
    let _cancels = cancel.clone().drop_guard();
    let starting = process.tasks.run_blocking("load model", move || {
        // Engines spawn tasks.
        let _runtime = runtime.enter();
        match (kind, path.as_deref()) {
            (EngineKind::Native, Some(path)) => {
                Engines::native(count, path, &engine, &started_in, &cancel)
            }
            (EngineKind::Native, None) => anyhow::bail!("a native engine needs a model"),
            (EngineKind::Mocker, path) => {
                Engines::mockers(&name, count, path, &mocker, &started_in, &cancel)
            }
        }
    });
    starting.await?
}

/// How tokens are drawn where a client does not say.
fn sampling(config: &ServeConfig, file: Option<&PulledModel>) -> SamplingDefaults {
    let recommended = file.and_then(|file| catalog::find(&file.name));
    let SamplingDefaults { temperature, top_p } = config.sampling;
    SamplingDefaults {
        temperature: temperature.or(recommended.and_then(|model| model.temperature)),
        top_p: top_p.or(recommended.and_then(|model| model.top_p)),
    }
}

/// Fails if nothing can listen on `address` now.
fn probe(address: SocketAddr) -> Result<()> {
    let listening = std::net::TcpListener::bind(address);
    listening.with_context(|| format!("cannot listen on {address}"))?;
    Ok(())
}

/// The catalog's name, or the file's without its ending.
fn default_name(pulled: &PulledModel) -> String {
    let stem = pulled.path.file_stem().and_then(|stem| stem.to_str());
    match stem {
        Some(stem) if catalog::find(&pulled.name).is_none() => stem.to_owned(),
        _ => pulled.name.clone(),
    }
}
