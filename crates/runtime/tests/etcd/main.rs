//! Discovery over a real etcd.
#![cfg(all(feature = "etcd", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod access;
mod contract;
mod drain;
mod leases;
mod outages;
mod quorum;
mod strangers;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use forebay_observability::Registry;
use forebay_runtime::{
    Discovery, EndpointId, EtcdConfig, EtcdDiscovery, EtcdDiscoveryConfig, Health, Instance,
    InstanceEvent, PlaneError, Tasks, Watch,
};
use forebay_testkit::Etcd;
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use tokio::time::{sleep, timeout};

/// How long a test waits for what must happen before it calls it missing.
const DEADLINE: Duration = Duration::from_secs(60);
/// The shortest time to live that etcd grants here.
const TTL: Duration = Duration::from_secs(1);

async fn in_time<F: Future>(future: F) -> F::Output {
    let output = timeout(DEADLINE, future).await;
    output.expect("what had to happen did not")
}

/// Waits until something holds that tells nobody when it does.
async fn until(mut holds: impl FnMut() -> bool) {
    in_time(async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Follows a watch that has told of the workers `before` until those there are the workers `after`;
/// who said goodbye on the way.
async fn until_present(watch: &mut Watch, before: &[u64], after: &[u64]) -> Vec<u64> {
    let mut present: BTreeSet<u64> = before.iter().copied().collect();
    let mut left = Vec::new();
    while !present.iter().eq(after) {
        match next(watch).await {
            InstanceEvent::Put(instance) => drop(present.insert(instance.worker.0)),
            InstanceEvent::Present(all) => {
                present = all.iter().map(|instance| instance.worker.0).collect();
            }
            InstanceEvent::Expired(worker) => drop(present.remove(&worker.0)),
            InstanceEvent::Removed(worker) => {
                present.remove(&worker.0);
                left.push(worker.0);
            }
        }
    }
    left
}

/// What a process has of its own.
struct Process {
    tasks: Tasks,
    discovery: EtcdDiscovery,
    registry: Registry,
    health: Health,
}

impl Process {
    async fn start(etcd: &Etcd) -> Self {
        Self::connect(config(etcd.address())).await.unwrap()
    }

    async fn connect(config: EtcdDiscoveryConfig) -> Result<Self, PlaneError> {
        let (registry, health) = (Registry::new(), Health::new());
        let tasks = Tasks::new(&registry);
        let discovery = EtcdDiscovery::connect(config, &tasks, &registry, &health);
        let discovery = in_time(discovery).await?;
        Ok(Self {
            tasks,
            discovery,
            registry,
            health,
        })
    }

    async fn watch(&self) -> Watch {
        in_time(self.discovery.watch(&endpoint())).await.unwrap()
    }

    async fn list(&self) -> Vec<Instance> {
        in_time(self.discovery.list(&endpoint())).await.unwrap()
    }

    fn is_degraded(&self) -> bool {
        !self.health.report().degraded.is_empty()
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> f64 {
        let metrics = self.registry.encode();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    }
}

fn config(address: String) -> EtcdDiscoveryConfig {
    EtcdDiscoveryConfig {
        members: vec![address],
        access: EtcdConfig::default(),
        ttl: TTL,
        connect_timeout: DEADLINE,
    }
}

fn endpoint() -> EndpointId {
    EndpointId::new("forebay", "worker", "engine").unwrap()
}

fn instance(worker: u64) -> Instance {
    Instance {
        endpoint: endpoint(),
        worker: WorkerId(worker),
        address: format!("somewhere:{worker}"),
        card: Bytes::from_static(b"card"),
    }
}

fn put(worker: u64) -> InstanceEvent {
    InstanceEvent::Put(instance(worker))
}

async fn next(watch: &mut Watch) -> InstanceEvent {
    in_time(watch.next()).await.unwrap()
}

fn write(directory: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}
