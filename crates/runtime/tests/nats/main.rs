//! The planes over a real NATS server.
#![cfg(all(feature = "nats", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod connection;
mod events;
mod planes;
mod requests;
mod tls;

use std::time::Duration;

use forebay_observability::Registry;
use forebay_runtime::{Health, NatsConfig, NatsConnection, PlaneError, Tasks};
use forebay_testkit::NatsServer;
use tokio::time::timeout;

/// How long a test waits for what must happen before it calls it missing.
const DEADLINE: Duration = Duration::from_secs(60);

async fn in_time<F: Future>(future: F) -> F::Output {
    let output = timeout(DEADLINE, future).await;
    output.expect("what had to happen did not")
}

/// What a process has of its own.
struct Process {
    connection: NatsConnection,
    tasks: Tasks,
    registry: Registry,
    health: Health,
}

impl Process {
    async fn start(server: &NatsServer) -> Self {
        Self::at(server.url()).await
    }

    /// One that finds the server at `url`.
    async fn at(url: String) -> Self {
        let registry = Registry::new();
        let (tasks, health) = (Tasks::new(&registry), Health::new());
        let config = config_at(url);
        let connection = NatsConnection::connect(&config, &tasks, &registry, &health);
        Self {
            connection: in_time(connection).await.unwrap(),
            tasks,
            registry,
            health,
        }
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> f64 {
        let text = self.registry.encode();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        value
            .unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Waits until the connection stands, or does not.
    async fn connected(&self, connected: bool) {
        let mut state = self.connection.connected();
        in_time(state.wait_for(|now| *now == connected))
            .await
            .unwrap();
    }
}

async fn connect(config: &NatsConfig) -> Result<NatsConnection, PlaneError> {
    let registry = Registry::new();
    let (tasks, health) = (Tasks::new(&registry), Health::new());
    in_time(NatsConnection::connect(config, &tasks, &registry, &health)).await
}

fn config(server: &NatsServer) -> NatsConfig {
    config_at(server.url())
}

fn config_at(url: String) -> NatsConfig {
    NatsConfig {
        servers: vec![url],
        ..NatsConfig::default()
    }
}
