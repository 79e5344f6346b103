use forebay_engine::remote::CardChangeError;
use forebay_protocols::Error;
use forebay_runtime::{InvalidName, PlaneError};

/// Why a [`Worker`](crate::Worker) did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be.
    #[error("the worker's settings cannot be used")]
    Config(#[from] ConfigError),
    /// The card says what cannot be.
    #[error("the worker's card cannot be used")]
    Card(#[source] CardChangeError),
    /// The engine did not answer a request of one token.
    #[error("the engine does not answer")]
    Engine(#[source] Error),
    /// The request plane, the event plane or discovery did not take the worker.
    #[error("the worker cannot be reached by others")]
    Plane(#[source] PlaneError),
}

/// A setting of a [`WorkerConfig`](crate::WorkerConfig) cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The deployment's name is none.
    #[error("the worker's namespace cannot be used")]
    Namespace(#[source] InvalidName),
    /// A number is out of its range.
    #[error("the worker's {setting} must be {expected}")]
    OutOfRange {
        /// The setting's name.
        setting: &'static str,
        /// Its range.
        expected: &'static str,
    },
}
