use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use forebay_observability::Registry;
use tracing::{info, warn};

use super::choice::{DiscoveryChoice, EventsChoice, RequestsChoice};
use super::config::{PlanesConfig, temporary_dir};
#[cfg(feature = "nats")]
use super::nats::NatsPlanes;
use super::own_directory::own_directory;
use super::reach::{Reach, reach};
use super::{PlaneError, Planes};
use crate::config::ConfigError;
use crate::discovery::{Discovery, FileConfig, FileDiscovery, MemoryDiscovery};
#[cfg(feature = "etcd")]
use crate::discovery::{EtcdDiscovery, EtcdDiscoveryConfig};
use crate::event_plane::{EventPlane, InProcessEvents};
use crate::health::Health;
use crate::request_plane::{InProcessPlane, RequestPlane};
#[cfg(feature = "tcp")]
use crate::request_plane::{TcpConfig, TcpPlane};
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
        let (discovery_choice, events_choice) = (self.discovery_in_use(), self.events_in_use());
        let advertised = self.advertise.as_deref();
        match reach(self) {
            Reach::Everyone => {}
            Reach::PerhapsTooShort => {
                info!(listen = %self.listen, advertised, "only this machine can reach this process");
            }
            Reach::TooShort => {
                warn!(listen = %self.listen, advertised, "only this machine can reach this process, \
                    and others may find it: set an address to listen on, and one to advertise");
            }
        }
        let discovery: Arc<dyn Discovery> = match &self.discovery {
            DiscoveryChoice::Memory => Arc::new(MemoryDiscovery::new()),
            DiscoveryChoice::File(directory) => {
                let opened = self.open_directory(directory.as_deref(), tasks, registry, health);
                Arc::new(opened.map_err(at(&discovery_choice))?)
            }
            #[cfg(feature = "etcd")]
            DiscoveryChoice::Etcd(members) => {
                let config = EtcdDiscoveryConfig {
                    members: members.clone(),
                    access: self.etcd.clone(),
                    ttl: self.lease(),
                    connect_timeout: self.connect_timeout(),
                };
                let connected = EtcdDiscovery::connect(config, tasks, registry, health).await;
                Arc::new(connected.map_err(at(&discovery_choice))?)
            }
            #[cfg(not(feature = "etcd"))]
            DiscoveryChoice::Etcd(_) => {
                return Err(not_built("etcd://", "etcd", ", which needs protoc"));
            }
        };
        #[cfg(feature = "nats")]
        let mut nats = NatsPlanes::new(self, tasks, registry, health);
        #[cfg(feature = "tcp")]
        let mut tcp = None;
        let requests: Arc<dyn RequestPlane> = match &self.requests {
            RequestsChoice::Memory => Arc::new(InProcessPlane::new()),
            #[cfg(feature = "tcp")]
            RequestsChoice::Tcp => {
                let plane = self.bind_tcp(tasks, registry, health).await;
                let plane = plane.map_err(at(&self.requests))?;
                tcp = Some(plane.clone());
                Arc::new(plane)
            }
            #[cfg(not(feature = "tcp"))]
            RequestsChoice::Tcp => return Err(not_built("tcp", "tcp", "")),
            #[cfg(feature = "nats")]
            RequestsChoice::Nats | RequestsChoice::NatsServers(_) => {
                let plane = nats.requests(self.nats_servers(&events_choice)).await;
                plane.map_err(at(&self.requests))?
            }
            #[cfg(not(feature = "nats"))]
            RequestsChoice::Nats | RequestsChoice::NatsServers(_) => {
                return Err(not_built("nats", "nats", ""));
            }
        };
        let events: Arc<dyn EventPlane> = match &events_choice {
            EventsChoice::Memory => Arc::new(InProcessEvents::new()),
            #[cfg(feature = "tcp")]
            EventsChoice::Tcp => {
                Arc::new(tcp.expect("the settings were checked: requests go by tcp"))
            }
            #[cfg(not(feature = "tcp"))]
            EventsChoice::Tcp => return Err(not_built("tcp", "tcp", "")),
            #[cfg(feature = "nats")]
            EventsChoice::Nats(servers) => {
                let plane = nats.events(servers).await;
                plane.map_err(at(&events_choice))?
            }
            #[cfg(not(feature = "nats"))]
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
    #[cfg(feature = "tcp")]
    async fn bind_tcp(
        &self,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<TcpPlane, PlaneError> {
        let config = TcpConfig {
            listen: self.listen,
            advertise: self.advertise.clone(),
            tls: self.tls.clone(),
            ..TcpConfig::default()
        };
        let bound = TcpPlane::bind(config, tasks, registry, health).await;
        bound.map_err(|error| PlaneError::Unreachable(error.into()))
    }

    /// The servers that requests go by.
    #[cfg(feature = "nats")]
    fn nats_servers<'a>(&'a self, events: &'a EventsChoice) -> &'a [String] {
        match (&self.requests, events) {
            (RequestsChoice::NatsServers(servers), _) => servers,
            (_, EventsChoice::Nats(servers)) => servers,
            _ => &[],
        }
    }

    fn open_directory(
        &self,
        directory: Option<&Path>,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<FileDiscovery, PlaneError> {
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => own_directory(&temporary_dir())
                .map_err(|error| PlaneError::Unreachable(error.into()))?,
        };
        let config = FileConfig {
            ttl: self.lease(),
            ..FileConfig::new(directory)
        };
        FileDiscovery::open(config, tasks, registry, health)
    }
}

/// The error of a plane that settings write as `plane`.
fn at(plane: &impl Display) -> impl FnOnce(PlaneError) -> ConnectError {
    let plane = plane.to_string();
    |source| ConnectError::Plane { plane, source }
}

#[cfg(not(all(feature = "etcd", feature = "nats", feature = "tcp")))]
fn not_built(plane: &'static str, feature: &'static str, also: &'static str) -> ConnectError {
    ConnectError::NotBuilt {
        plane,
        feature,
        also,
    }
}
