use std::io;
use std::net::SocketAddr;

use forebay_runtime::InvalidName;
use forebay_tokens::WorkerId;

/// Why a frontend could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its range.
    #[error("the frontend's {setting} must be {expected}")]
    InvalidSetting {
        /// Its name.
        setting: &'static str,
        /// Its range.
        expected: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A setting of the router is out of its range.
    #[error("the frontend's router cannot be set up")]
    Router(#[from] forebay_router::ConfigError),
    /// A worker's model is not the one of its pool.
    #[error("worker {worker} serves a model with another {what}")]
    OtherModel {
        /// The worker.
        worker: WorkerId,
        /// What differs.
        what: &'static str,
    },
    /// The deployment's name is no proper one.
    #[error("the deployment cannot be followed")]
    Namespace(#[from] InvalidName),
    /// A model has no name.
    #[error("a model has an empty name")]
    EmptyModelName,
    /// Two models have one name.
    #[error("two models are named {0:?}")]
    DuplicateModelName(String),
}
