use std::collections::BTreeMap;
use std::path::PathBuf;

use forebay_engine::remote::WorkerCard;
use forebay_mock_engine::MockerConfig;
use forebay_observability::TelemetryConfig;
use forebay_runtime::command::IoThreads;
use forebay_runtime::{ConfigError, PlanesConfig, ShutdownConfig};
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::WorkerConfig;
use crate::engines::{EnginesConfig, EnginesSpec, SamplingConfig};
use crate::status::StatusConfig;

/// Everything that can be set of a worker's process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// [`EnginesSpec::model`].
    pub model: Option<String>,
    /// [`EnginesSpec::served_model_name`].
    pub served_model_name: Option<String>,
    /// [`EnginesSpec::aliases`].
    pub aliases: Vec<String>,
    /// [`EnginesSpec::cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// How tokens are drawn where a client does not say.
    pub sampling: SamplingConfig,
    /// How many workers there are, each with an engine of its own.
    pub workers: EnginesConfig,
    /// Each worker.
    pub worker: WorkerConfig,
    /// Where the process is, such as `zone` and `rack`: names and values of the operator's.
    pub topology: BTreeMap<String, String>,
    /// Each worker's part in its version's share of the requests for the model, 0 to 1,000,000.
    /// Default 1.
    pub weight: Option<f64>,
    /// Native engines, all together: they share the threads and the KV memory evenly.
    #[cfg(feature = "native")]
    pub engine: forebay_native_engine::EngineConfig,
    /// Each mocker.
    pub mocker: MockerConfig,
    /// How it finds the rest of the deployment and talks to it.
    pub planes: PlanesConfig,
    /// Where it tells about itself.
    pub status: StatusConfig,
    /// Threads that carry tokens.
    pub io_threads: IoThreads,
    /// How it ends.
    pub shutdown: ShutdownConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

/// Tables whose keys are the user's.
pub(super) const OPEN: &[&str] = &["mocker.perf_model", "telemetry.otlp.headers", "topology"];

/// Whether a setting's value must not be shown.
pub(super) fn is_secret(key: &str) -> bool {
    key == "engine.content_key"
        || key.ends_with(".password")
        || key.starts_with("telemetry.otlp.headers.")
}

impl WorkerSettings {
    /// [`Self::weight`] with its default.
    pub(super) fn weight(&self) -> f64 {
        self.weight.unwrap_or(1.0)
    }

    /// Checks every setting, before anything is fetched or started.
    ///
    /// # Errors
    ///
    /// [`Error`], for the first that cannot be.
    pub fn check(&self) -> Result<(), Error> {
        self.io_threads.check()?;
        if !WorkerCard::is_weight(self.weight()) {
            let setting = "weight";
            let expected = "from 0 to 1000000";
            return Err(ConfigError { setting, expected }.into());
        }
        self.engines().check()?;
        self.worker.check().map_err(Error::Worker)?;
        self.planes.check_shared().map_err(Error::Planes)?;
        self.shutdown.check().map_err(Error::Shutdown)
    }

    /// The host by which others reach the machine, if it is set.
    pub(super) fn advertised_host(&self) -> Option<String> {
        let advertise = self.planes.advertise.as_deref()?;
        let port = |(host, port): &(&str, &str)| !host.contains(':') && port.parse::<u16>().is_ok();
        let parts = advertise.rsplit_once(':').filter(port);
        Some(parts.map_or(advertise, |(host, _)| host).to_owned())
    }

    /// What its engines are.
    pub(super) fn engines(&self) -> EnginesSpec {
        EnginesSpec {
            model: self.model.clone(),
            served_model_name: self.served_model_name.clone(),
            aliases: self.aliases.clone(),
            cache_dir: self.cache_dir.clone(),
            sampling: self.sampling,
            engines: self.workers,
            #[cfg(feature = "native")]
            native: self.engine.clone(),
            mocker: self.mocker.clone(),
        }
    }
}
