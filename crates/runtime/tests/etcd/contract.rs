//! The suite of discovery.

use forebay_runtime::{Registration, discovery_conformance_tests};
use futures::future::BoxFuture;

use super::*;

discovery_conformance_tests!(OwnEtcd::start().await);

/// Discovery over an etcd of its own.
struct OwnEtcd {
    process: Process,
    _etcd: Etcd,
}

impl OwnEtcd {
    async fn start() -> Self {
        let etcd = Etcd::start();
        Self {
            process: Process::start(&etcd).await,
            _etcd: etcd,
        }
    }
}

impl Discovery for OwnEtcd {
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        self.process.discovery.register(instance)
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        self.process.discovery.list(endpoint)
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        self.process.discovery.watch(endpoint)
    }
}
