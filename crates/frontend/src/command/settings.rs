use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use forebay_observability::TelemetryConfig;
use forebay_runtime::{EndpointId, PlanesConfig, ShutdownConfig};
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
    /// Threads that serve connections and carry tokens, 1 to 1024. Default: half of the cores. A
    /// token is carried in a few microseconds, so that to wake one more thread for it costs more
    /// than it saves.
    pub io_threads: Option<NonZeroUsize>,
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
            io_threads: None,
            shutdown: ShutdownConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// No machine gains by more.
const MOST_THREADS: usize = 1024;

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
        if self.io_threads.is_some_and(|n| n.get() > MOST_THREADS) {
            return Err(Error::Setting {
                setting: "io_threads",
                expected: "from 1 to 1024",
            });
        }
        let endpoint = EndpointId::new(&self.namespace, "frontend", "router");
        endpoint.map_err(|_| Error::Setting {
            setting: "namespace",
            expected: "1 to 63 of a-z, 0-9, - and _, a letter or digit first",
        })?;
        self.frontend.check()?;
        self.planes.check_shared().map_err(Error::Planes)?;
        self.shutdown.check().map_err(Error::Shutdown)
    }

    /// [`Self::io_threads`] with its default.
    pub(super) fn io_threads(&self) -> NonZeroUsize {
        self.io_threads.unwrap_or_else(|| {
            let cores = available_parallelism().map_or(1, NonZeroUsize::get);
            NonZeroUsize::new(cores.div_ceil(2)).unwrap_or(NonZeroUsize::MIN)
        })
    }
}
