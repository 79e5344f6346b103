use std::sync::Arc;

use forebay_observability::Registry;
use forebay_runtime::{
    EndpointId, Health, RequestPlane as _, Served, StreamHandler, Tasks, TcpConfig, TcpPlane,
};
use forebay_testkit::FaultProxy;
use forebay_tokens::WorkerId;

use crate::in_time;

/// What a process has of its own.
pub(crate) struct Process {
    pub(crate) plane: TcpPlane,
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
    registry: Registry,
}

impl Process {
    pub(crate) async fn start(config: TcpConfig) -> Self {
        let registry = Registry::new();
        let tasks = Tasks::new(&registry);
        let health = Health::new();
        let plane = TcpPlane::bind(config, &tasks, &registry, &health).await;
        Self {
            plane: plane.unwrap(),
            tasks,
            health,
            registry,
        }
    }

    /// A process that others reach through a proxy only.
    pub(crate) async fn behind(proxy: &FaultProxy, config: TcpConfig) -> Self {
        let process = Self::start(TcpConfig {
            advertise: Some(proxy.address().to_string()),
            ..config
        })
        .await;
        proxy.set_target(process.plane.local_addr());
        process
    }

    pub(crate) async fn serve(
        &self,
        worker: u64,
        handler: Arc<dyn StreamHandler>,
    ) -> Box<dyn Served> {
        let endpoint = EndpointId::new("test", "worker", "engine").unwrap();
        let served = self.plane.serve(&endpoint, WorkerId(worker), handler);
        in_time(served).await.unwrap()
    }

    /// The value of a metric; 0 if it has not been counted yet.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.registry.encode();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}
