use forebay_protocols::Error;
use forebay_runtime::{InvalidName, PlaneError};

/// Why a [`Worker`](crate::Worker) did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The deployment's name is none.
    #[error("the namespace cannot be used")]
    Namespace(#[source] InvalidName),
    /// The engine did not answer a request of one token.
    #[error("the engine does not answer")]
    Engine(#[source] Error),
    /// The request plane, the event plane or discovery did not take the worker.
    #[error("the worker cannot be reached by others")]
    Plane(#[source] PlaneError),
}
