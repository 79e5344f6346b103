//! `forebay serve`: a model, its engine and the frontend in one process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use forebay_chat::{ChatTemplate, GgufVocabulary, Tokenizer};
use forebay_frontend::{Frontend, ModelRegistry, Process, SamplingDefaults, ServedModel};
use forebay_model_store::{ModelRef, PulledModel, catalog};
use forebay_native_engine::{EngineConfig, Model, NativeEngine};
use forebay_observability::{BuildInfo, Registry, Telemetry};
use forebay_runtime::{Health, Shutdown, TaskKind, Tasks, signals};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::config::ServeConfig;
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

    let reference = ModelRef::parse(&config.model)?;
    // What is wrong with the address is said before a model is fetched.
    probe(config.frontend.address())?;
    let store = models::store(config.cache_dir)?;
    let pulled = models::pull(store, reference, &mut signals).await?;
    let name = config
        .served_model_name
        .unwrap_or_else(|| default_name(&pulled));

    let began = Instant::now();
    let loading = process.tasks.run_blocking("load model", {
        let (name, path, process) = (name.clone(), pulled.path.clone(), process.clone());
        move || load(&name, &path, &config.engine, &process)
    });
    let model = tokio::select! {
        loaded = loading => loaded??,
        Some(signal) = signals.next() => return Err(Interrupted(signal).into()),
    };
    let recommended = catalog::find(&pulled.name);
    let model = model.with_sampling_defaults(SamplingDefaults {
        temperature: (config.sampling.temperature)
            .or(recommended.and_then(|model| model.temperature)),
        top_p: config
            .sampling
            .top_p
            .or(recommended.and_then(|model| model.top_p)),
    })?;
    let load_time = began.elapsed();
    let context_length = model.pool().model().context_length;

    let (tasks, health) = (process.tasks.clone(), process.health.clone());
    let models = ModelRegistry::new([model])?;
    let frontend = Frontend::bind(&config.frontend, models, process).await?;
    let address = frontend.local_addr();
    tasks.spawn(
        TaskKind::Critical,
        "accept connections",
        frontend.run(CancellationToken::new()),
    );
    print(&banner(&name, context_length, load_time, address))?;

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

/// The catalog's name, or the file's without its ending.
fn default_name(pulled: &PulledModel) -> String {
    let stem = pulled.path.file_stem().and_then(|stem| stem.to_str());
    match stem {
        Some(stem) if catalog::find(&pulled.name).is_none() => stem.to_owned(),
        _ => pulled.name.clone(),
    }
}

/// Loads a model and puts the tokenizer and the template that its file brings before its engine,
/// which is started last: what is wrong with the others costs no threads and no KV memory.
fn load(name: &str, path: &Path, config: &EngineConfig, process: &Process) -> Result<ServedModel> {
    let model = Model::load(path)?;
    let metadata = model.metadata().tokenizer.clone();
    let template = metadata.chat_template.as_deref().map(ChatTemplate::new);
    let template = template.transpose().context("its chat template")?;
    let tokenizer = Tokenizer::from_gguf(GgufVocabulary {
        model: metadata.model,
        pre: metadata.pre.unwrap_or_default(),
        tokens: metadata.tokens,
        merges: metadata.merges,
        token_types: metadata.token_types,
        bos: metadata.bos,
        eos: metadata.eos,
        unk: metadata.unknown,
        add_bos: metadata.add_bos,
    })
    .context("its tokenizer")?;
    let engine = NativeEngine::start(config, Arc::new(model), &process.tasks, &process.metrics)?;
    let model = ServedModel::new(name, tokenizer, Arc::new(engine));
    Ok(match template {
        Some(template) => model.with_template(template),
        None => model,
    })
}

/// What the user sees: what is served, where, and what can be reached there.
fn banner(name: &str, context_length: u32, load_time: Duration, address: SocketAddr) -> String {
    let version = BUILD.version;
    let seconds = load_time.as_secs_f64();
    let reach = match address.ip() {
        ip if ip.is_loopback() => "this machine only",
        ip if ip.is_unspecified() => "every network of this machine, without authentication",
        _ => "the network of this address, without authentication",
    };
    let prompt = "What is the capital of France?";
    format!(
        r#"forebay {version}
model     {name}, {context_length} tokens of context, loaded in {seconds:.1} s
address   http://{address}

Try it:
  curl http://{address}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "{prompt}"}}]}}'

Open surfaces:
  http://{address} ({reach})
    POST /v1/chat/completions  /v1/completions
    GET  /v1/models  /health  /live  /ready  /metrics  /openapi.json

Ctrl-C drains and stops.
"#
    )
}
