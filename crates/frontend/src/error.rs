use std::io;
use std::net::SocketAddr;

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
    /// A model has no name.
    #[error("a model has an empty name")]
    EmptyModelName,
    /// Two models have one name.
    #[error("two models are named {0:?}")]
    DuplicateModelName(String),
}
