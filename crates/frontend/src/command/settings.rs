use forebay_observability::TelemetryConfig;
use forebay_runtime::command::IoThreads;
use forebay_runtime::{ConfigError, EndpointId, PlanesConfig, ShutdownConfig};
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::FrontendConfig;

/// Everything that can be set of a frontend's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrontendSettings {
    /// The deployment that it answers for: 1 to 63 of a-z, 0-9, - and _, a letter or digit first.
    /// Default `forebay`.
    pub namespace: String,
    /// Where it listens, what clients may take, and how workers are chosen.
    pub frontend: FrontendConfig,
    /// How it finds the rest of the deployment and talks to it.
    pub planes: PlanesConfig,
    /// Threads that serve connections and carry tokens.
    pub io_threads: IoThreads,
    /// How it ends.
    pub shutdown: ShutdownConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

impl Default for FrontendSettings {
    fn default() -> Self {
        Self {
            namespace: "forebay".into(),
            frontend: FrontendConfig::default(),
            planes: PlanesConfig::default(),
            io_threads: IoThreads::default(),
            shutdown: ShutdownConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// Tables whose keys are the user's.
pub(super) const OPEN: &[&str] = &["telemetry.otlp.headers"];

/// Whether a setting's value must not be shown.
pub(super) fn is_secret(key: &str) -> bool {
    key.ends_with(".password") || key.starts_with("telemetry.otlp.headers.")
}

impl FrontendSettings {
    /// Checks every setting, before anything is started.
    ///
    /// # Errors
    ///
    /// [`Error`], for the first that cannot be.
    pub fn check(&self) -> Result<(), Error> {
        self.io_threads.check()?;
        let endpoint = EndpointId::new(&self.namespace, "frontend", "router");
        endpoint.map_err(|_| ConfigError {
            setting: "namespace",
            expected: "1 to 63 of a-z, 0-9, - and _, a letter or digit first",
        })?;
        self.frontend.check()?;
        self.planes.check_shared().map_err(Error::Planes)?;
        self.shutdown.check().map_err(Error::Shutdown)
    }
}
