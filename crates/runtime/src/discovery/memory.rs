use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Discovery, Instance, InstanceEvent, Registration, Watch};
use crate::names::EndpointId;
use crate::planes::PlaneError;

/// Changes that a watcher may be behind before it is told anew who is present.
const CHANGES: usize = 64;

/// Discovery within a process. Clones are handles on the same instances.
#[derive(Clone, Debug, Default)]
pub struct MemoryDiscovery {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Numbers registrations.
    next: u64,
    endpoints: HashMap<EndpointId, Endpoint>,
}

/// What is known of an endpoint; exists while it has an instance or a watcher.
#[derive(Debug)]
struct Endpoint {
    /// With the number of the registration.
    instances: BTreeMap<WorkerId, (u64, Instance)>,
    changes: broadcast::Sender<InstanceEvent>,
}

impl MemoryDiscovery {
    /// Nobody is there.
    pub fn new() -> Self {
        Self::default()
    }

    fn register_now(&self, instance: Instance) -> Registered {
        let mut shared = self.shared.lock();
        let number = shared.next;
        shared.next += 1;
        let (endpoint, worker) = (instance.endpoint.clone(), instance.worker);
        let known = shared.endpoint(&endpoint);
        known.instances.insert(worker, (number, instance.clone()));
        known.tell(InstanceEvent::Put(instance));
        Registered {
            discovery: self.clone(),
            endpoint,
            worker,
            number,
        }
    }

    /// Who is there now, and the changes from now on.
    fn subscribe(&self, endpoint: &EndpointId) -> (InstanceEvent, Changes) {
        let mut shared = self.shared.lock();
        let known = shared.endpoint(endpoint);
        let changes = Changes {
            discovery: self.clone(),
            endpoint: endpoint.clone(),
            receiver: Some(known.changes.subscribe()),
        };
        (InstanceEvent::Present(known.present()), changes)
    }
}

impl Shared {
    fn endpoint(&mut self, endpoint: &EndpointId) -> &mut Endpoint {
        self.endpoints
            .entry(endpoint.clone())
            .or_insert_with(|| Endpoint {
                instances: BTreeMap::new(),
                changes: broadcast::Sender::new(CHANGES),
            })
    }

    /// Forgets an endpoint that nobody serves or watches.
    fn tidy(&mut self, endpoint: &EndpointId) {
        let is_unused =
            |known: &Endpoint| known.instances.is_empty() && known.changes.receiver_count() == 0;
        if self.endpoints.get(endpoint).is_some_and(is_unused) {
            self.endpoints.remove(endpoint);
        }
    }
}

impl Endpoint {
    fn present(&self) -> Vec<Instance> {
        self.instances
            .values()
            .map(|(_, instance)| instance.clone())
            .collect()
    }

    fn tell(&self, event: InstanceEvent) {
        // That nobody watches is no failure.
        let _ = self.changes.send(event);
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
        async move {
            let shared = self.shared.lock();
            let known = shared.endpoints.get(endpoint);
            Ok(known.map(Endpoint::present).unwrap_or_default())
        }
        .boxed()
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        async move {
            let (present, changes) = self.subscribe(endpoint);
            let changes = stream::unfold(changes, |mut changes| async move {
                Some((changes.next().await, changes))
            });
            Ok(stream::iter([present]).chain(changes).boxed())
        }
        .boxed()
    }
}

/// A watcher's part.
struct Changes {
    discovery: MemoryDiscovery,
    endpoint: EndpointId,
    /// Taken when it is dropped.
    receiver: Option<broadcast::Receiver<InstanceEvent>>,
}

impl Changes {
    async fn next(&mut self) -> InstanceEvent {
        let receiver = self.receiver.as_mut().expect("taken only when dropped");
        match receiver.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => {
                let (present, changes) = self.discovery.subscribe(&self.endpoint);
                *self = changes;
                present
            }
            Err(RecvError::Closed) => unreachable!("the sender lives as long as a receiver does"),
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        drop(self.receiver.take());
        self.discovery.shared.lock().tidy(&self.endpoint);
    }
}

/// The part of who registered.
struct Registered {
    discovery: MemoryDiscovery,
    endpoint: EndpointId,
    worker: WorkerId,
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
        let mut shared = self.discovery.shared.lock();
        let known = shared.endpoint(&self.endpoint);
        let registered = known.instances.get(&self.worker);
        if registered.is_some_and(|(number, _)| *number == self.number) {
            known.instances.remove(&self.worker);
            known.tell(InstanceEvent::Removed(self.worker));
        }
        shared.tidy(&self.endpoint);
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
        assert_eq!(discovery.shared.lock().endpoints.len(), 1);
        registration.deregister().await.unwrap();
        assert_eq!(discovery.shared.lock().endpoints.len(), 0);
    }
}
