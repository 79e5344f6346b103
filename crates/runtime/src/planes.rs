//! Everything by which a deployment's processes find each other and talk.

mod choice;
mod config;
mod connect;
#[cfg(feature = "nats")]
mod nats;
mod own_directory;
mod reach;
mod secret;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

pub use choice::{DiscoveryChoice, EventsChoice, InvalidChoice, RequestsChoice};
pub use config::{EtcdConfig, NatsAuthConfig, PeerTlsConfig, PlanesConfig, TlsConfig};
pub use connect::ConnectError;
pub use secret::Secret;

use crate::discovery::{Discovery, MemoryDiscovery};
use crate::event_plane::{EventPlane, InProcessEvents};
use crate::request_plane::{InProcessPlane, RequestPlane};

/// How the parts of a deployment find each other and talk. Cloning copies pointers.
#[derive(Clone)]
pub struct Planes {
    /// Who is there.
    pub discovery: Arc<dyn Discovery>,
    /// Requests and their answers.
    pub requests: Arc<dyn RequestPlane>,
    /// What everyone may want to know.
    pub events: Arc<dyn EventPlane>,
}

impl Planes {
    /// Planes within this process, apart from any others.
    pub fn in_process() -> Self {
        Self {
            discovery: Arc::new(MemoryDiscovery::new()),
            requests: Arc::new(InProcessPlane::new()),
            events: Arc::new(InProcessEvents::new()),
        }
    }
}

impl fmt::Debug for Planes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planes").finish_non_exhaustive()
    }
}

/// Why something could not be set up on a plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// What the plane stands on does not answer.
    #[error("the plane cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// What the plane stands on answers, and does not take it.
    #[error("the plane does not take it")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The name is taken.
    #[error("{0} is already served")]
    InUse(String),
}
