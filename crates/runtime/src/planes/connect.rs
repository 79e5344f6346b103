use std::path::Path;
use std::sync::Arc;

use forebay_observability::Registry;

use super::choice::{DiscoveryChoice, EventsChoice, RequestsChoice};
use super::config::PlanesConfig;
use super::own_directory::own_directory;
use super::{PlaneError, Planes};
use crate::config::ConfigError;
use crate::discovery::{Discovery, FileConfig, FileDiscovery, MemoryDiscovery};
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
        let discovery: Arc<dyn Discovery> = match &self.discovery {
            DiscoveryChoice::Memory => Arc::new(MemoryDiscovery::new()),
            DiscoveryChoice::File(directory) => {
                let opened = self.open_directory(directory.as_deref(), tasks, registry, health);
                let at = |source| ConnectError::Plane {
                    plane: self.discovery.to_string(),
                    source,
                };
                Arc::new(opened.map_err(at)?)
            }
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

impl PlanesConfig {
    fn open_directory(
        &self,
        directory: Option<&Path>,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<FileDiscovery, PlaneError> {
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => own_directory().map_err(|error| PlaneError::Unreachable(error.into()))?,
        };
        let config = FileConfig {
            ttl: self.lease(),
            ..FileConfig::new(directory)
        };
        FileDiscovery::open(config, tasks, registry, health)
    }
}

fn not_built(plane: &'static str, feature: &'static str, also: &'static str) -> ConnectError {
    ConnectError::NotBuilt {
        plane,
        feature,
        also,
    }
}
