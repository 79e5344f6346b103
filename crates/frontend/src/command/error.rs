use std::io;

use forebay_runtime::ConnectError;

/// Why a frontend's process ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings cannot be read.
    #[error(transparent)]
    Settings(#[from] forebay_settings::Error),
    /// A setting of the planes cannot be.
    #[error("wrong setting in `planes`")]
    Planes(#[source] forebay_runtime::ConfigError),
    /// A setting of the shutdown cannot be.
    #[error("wrong setting in `shutdown`")]
    Shutdown(#[source] forebay_runtime::ConfigError),
    /// A setting is out of its range.
    #[error(transparent)]
    Setting(#[from] forebay_runtime::ConfigError),
    /// Logs or traces cannot be.
    #[error(transparent)]
    Telemetry(#[from] forebay_observability::Error),
    /// The deployment cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The frontend cannot be set up, or a setting of it cannot be.
    #[error(transparent)]
    Frontend(#[from] crate::Error),
    /// What the process needs of the system cannot be had.
    #[error("the system does not let it run")]
    System(#[from] io::Error),
}
