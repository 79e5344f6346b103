use std::collections::HashMap;
use std::sync::Arc;

use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::board::{Board, Gone};
use super::{Discovery, Instance, Registration, Watch};
use crate::names::EndpointId;
use crate::planes::PlaneError;

/// Discovery within a process. Clones are handles on the same instances.
#[derive(Clone, Debug, Default)]
pub struct MemoryDiscovery {
    board: Board,
    registrations: Arc<Mutex<Registrations>>,
}

/// Which registration of each instance counts.
#[derive(Debug, Default)]
struct Registrations {
    next: u64,
    current: HashMap<(EndpointId, WorkerId), u64>,
}

impl MemoryDiscovery {
    /// Nobody is there.
    pub fn new() -> Self {
        Self::default()
    }

    fn register_now(&self, instance: Instance) -> Registered {
        let mut registrations = self.registrations.lock();
        let number = registrations.next;
        registrations.next += 1;
        let key = (instance.endpoint.clone(), instance.worker);
        registrations.current.insert(key.clone(), number);
        self.board.put(instance);
        Registered {
            discovery: self.clone(),
            key,
            number,
        }
    }
}

impl Discovery for MemoryDiscovery {
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        async move { Ok(Box::new(self.register_now(instance)) as Box<dyn Registration>) }.boxed()
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        async move { Ok(self.board.list(endpoint)) }.boxed()
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        async move { Ok(self.board.watch(endpoint)) }.boxed()
    }
}

/// The part of who registered.
struct Registered {
    discovery: MemoryDiscovery,
    key: (EndpointId, WorkerId),
    number: u64,
}

impl Registration for Registered {
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), PlaneError>> {
        async move {
            drop(self);
            Ok(())
        }
        .boxed()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut registrations = self.discovery.registrations.lock();
        if registrations.current.get(&self.key) == Some(&self.number) {
            registrations.current.remove(&self.key);
            let (endpoint, worker) = &self.key;
            self.discovery.board.remove(endpoint, *worker, Gone::Left);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    crate::discovery_conformance_tests!(MemoryDiscovery::new());

    #[tokio::test]
    async fn what_nobody_uses_is_forgotten() {
        let discovery = MemoryDiscovery::new();
        let endpoint = EndpointId::new("a", "b", "c").unwrap();
        let watch = discovery.watch(&endpoint).await.unwrap();
        let instance = Instance {
            endpoint,
            worker: WorkerId(1),
            address: String::new(),
            card: Default::default(),
        };
        let registration = discovery.register(instance).await.unwrap();
        drop(watch);
        assert_eq!(discovery.board.endpoints(), 1);
        registration.deregister().await.unwrap();
        assert_eq!(discovery.board.endpoints(), 0);
    }
}
