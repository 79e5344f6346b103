//! The planes that go over NATS.

use std::sync::Arc;

use forebay_observability::Registry;

use super::{PlaneError, PlanesConfig};
use crate::event_plane::EventPlane;
use crate::health::Health;
use crate::nats::{NatsConfig, NatsConnection, NatsEvents, NatsPlane, NatsPlaneConfig};
use crate::request_plane::RequestPlane;
use crate::tasks::Tasks;

/// Makes planes over NATS, those over the same servers over one connection.
pub(super) struct NatsPlanes<'a> {
    config: &'a PlanesConfig,
    tasks: &'a Tasks,
    registry: &'a Registry,
    health: &'a Health,
    connection: Option<(&'a [String], NatsConnection)>,
}

impl<'a> NatsPlanes<'a> {
    pub(super) fn new(
        config: &'a PlanesConfig,
        tasks: &'a Tasks,
        registry: &'a Registry,
        health: &'a Health,
    ) -> Self {
        Self {
            config,
            tasks,
            registry,
            health,
            connection: None,
        }
    }

    pub(super) async fn requests(
        &mut self,
        servers: &'a [String],
    ) -> Result<Arc<dyn RequestPlane>, PlaneError> {
        let connection = self.connection(servers).await?;
        let config = NatsPlaneConfig::default();
        let plane = NatsPlane::start(&connection, config, self.tasks, self.registry);
        Ok(Arc::new(plane.await?))
    }

    pub(super) async fn events(
        &mut self,
        servers: &'a [String],
    ) -> Result<Arc<dyn EventPlane>, PlaneError> {
        let connection = self.connection(servers).await?;
        Ok(Arc::new(NatsEvents::new(&connection, self.tasks)))
    }

    async fn connection(&mut self, servers: &'a [String]) -> Result<NatsConnection, PlaneError> {
        if let Some((known, connection)) = &self.connection
            && *known == servers
        {
            return Ok(connection.clone());
        }
        let auth = &self.config.nats;
        let config = NatsConfig {
            servers: servers.to_vec(),
            user: auth.user.clone(),
            password: auth.password.clone(),
            tls: auth.tls.clone(),
            connect_timeout: self.config.connect_timeout(),
        };
        let connection =
            NatsConnection::connect(&config, self.tasks, self.registry, self.health).await?;
        self.connection = Some((servers, connection.clone()));
        Ok(connection)
    }
}
