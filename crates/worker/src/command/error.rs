use std::io;
use std::net::SocketAddr;

use forebay_runtime::ConnectError;

use crate::{ConfigError, StartError, engines};

/// Why a worker's process ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings cannot be read.
    #[error(transparent)]
    Settings(#[from] forebay_settings::Error),
    /// A setting of the workers cannot be.
    #[error("wrong setting in `worker`")]
    Worker(#[source] ConfigError),
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
    /// There are no engines.
    #[error(transparent)]
    Engines(#[from] engines::Error),
    /// The deployment cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The address for the status cannot be had.
    #[error("cannot listen on {address}")]
    Status {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A worker does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No worker's id can be drawn.
    #[error("no random worker id can be drawn")]
    Random(#[source] getrandom::Error),
    /// What the process needs of the system cannot be had.
    #[error("the system does not let it run")]
    System(#[from] io::Error),
}
