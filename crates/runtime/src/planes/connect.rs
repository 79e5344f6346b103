use std::sync::Arc;

use forebay_observability::Registry;

use super::choice::{DiscoveryChoice, EventsChoice, RequestsChoice};
use super::config::PlanesConfig;
use super::{PlaneError, Planes};
use crate::config::ConfigError;
use crate::discovery::{Discovery, MemoryDiscovery};
use crate::event_plane::{EventPlane, InProcessEvents};
use crate::health::Health;
use crate::request_plane::{InProcessPlane, RequestPlane};
use crate::tasks::Tasks;

/// Why a process has no planes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This build has no such plane.
    #[error("{plane} needs a build with the cargo feature `{feature}`{also}")]
    NotBuilt {
        /// The plane, as settings write it.
        plane: &'static str,
        /// The feature that adds it.
        feature: &'static str,
        /// What building it needs besides; begins with a comma, or is empty.
        also: &'static str,
    },
    /// What a plane stands on is not there.
    #[error("{plane} cannot be used")]
    Plane {
        /// The plane, as settings write it.
        plane: String,
        /// What is wrong.
        source: PlaneError,
    },
}

impl PlanesConfig {
    /// Connects to what the settings name. It waits for services that are not there yet, up to the
    /// connect timeout; once connected, the planes outlive any outage of theirs. Their upkeep are
    /// tasks of `tasks`, their metrics go to `registry`, and what is amiss with them is told in
    /// `health`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<Planes, ConnectError> {
        self.check()?;
        let _ = (tasks, registry, health);
        let discovery: Arc<dyn Discovery> = match &self.discovery {
            DiscoveryChoice::Memory => Arc::new(MemoryDiscovery::new()),
            DiscoveryChoice::File(_) => return Err(not_built("file:", "file", "")),
            DiscoveryChoice::Etcd(_) => {
                return Err(not_built("etcd://", "etcd", ", which needs protoc"));
            }
        };
        let requests: Arc<dyn RequestPlane> = match &self.requests {
            RequestsChoice::Memory => Arc::new(InProcessPlane::new()),
            RequestsChoice::Tcp => return Err(not_built("tcp", "tcp", "")),
            RequestsChoice::Nats | RequestsChoice::NatsServers(_) => {
                return Err(not_built("nats", "nats", ""));
            }
        };
        let events: Arc<dyn EventPlane> = match &self.events {
            EventsChoice::Memory => Arc::new(InProcessEvents::new()),
            EventsChoice::Tcp => return Err(not_built("tcp", "tcp", "")),
            EventsChoice::Nats(_) => return Err(not_built("nats://", "nats", "")),
        };
        Ok(Planes {
            discovery,
            requests,
            events,
        })
    }
}

fn not_built(plane: &'static str, feature: &'static str, also: &'static str) -> ConnectError {
    ConnectError::NotBuilt {
        plane,
        feature,
        also,
    }
}
