use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::stream;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::metrics::Metrics;
use super::{Instance, InstanceEvent, Watch};
use crate::names::EndpointId;

/// Changes that a watcher may be behind before it is told anew who is present.
const CHANGES: usize = 64;

/// Who is known behind each endpoint, and those who watch it. Clones are handles on one board.
///
/// An implementation of discovery writes on it what it learns, in order; watchers get it as the
/// contract says. An endpoint is on it while it has an instance or a watcher.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    endpoints: Arc<Mutex<HashMap<EndpointId, Known>>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Known {
    instances: BTreeMap<WorkerId, Instance>,
    changes: broadcast::Sender<InstanceEvent>,
}

/// How an instance went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It said goodbye.
    Left,
    /// Its record did not last.
    Expired,
}

impl Board {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            endpoints: Arc::default(),
            metrics,
        }
    }

    /// An instance is there, as it says.
    pub(super) fn put(&self, instance: Instance) {
        self.change(&instance.endpoint.clone(), |known| {
            let old = known.instances.insert(instance.worker, instance.clone());
            (old.as_ref() != Some(&instance)).then_some(InstanceEvent::Put(instance))
        });
    }

    /// An instance is not there any more.
    pub(super) fn remove(&self, endpoint: &EndpointId, worker: WorkerId, gone: Gone) {
        self.change(endpoint, |known| {
            known.instances.remove(&worker)?;
            Some(match gone {
                Gone::Left => InstanceEvent::Removed(worker),
                Gone::Expired => InstanceEvent::Expired(worker),
            })
        });
    }

    /// These are there and nobody else, after changes that may have been missed.
    #[cfg(feature = "etcd")]
    pub(super) fn present(&self, endpoint: &EndpointId, instances: Vec<Instance>) {
        self.change(endpoint, |known| {
            let present = instances
                .iter()
                .map(|instance| (instance.worker, instance.clone()))
                .collect();
            if known.instances == present {
                return None;
            }
            known.instances = present;
            Some(InstanceEvent::Present(known.list()))
        });
    }

    /// Who is there, in the order of their workers.
    pub(super) fn list(&self, endpoint: &EndpointId) -> Vec<Instance> {
        let endpoints = self.endpoints.lock();
        endpoints.get(endpoint).map(Known::list).unwrap_or_default()
    }

    /// Who is there, and every change from now on.
    pub(super) fn watch(&self, endpoint: &EndpointId) -> Watch {
        let (present, changes) = self.subscribe(endpoint);
        let changes = stream::unfold(changes, |mut changes| async move {
            Some((changes.next().await, changes))
        });
        stream::iter([present]).chain(changes).boxed()
    }

    /// Forgets an endpoint unless someone watches it; whether it did.
    pub(super) fn forget(&self, endpoint: &EndpointId) -> bool {
        let mut endpoints = self.endpoints.lock();
        if let Some(known) = endpoints.get(endpoint) {
            if known.changes.receiver_count() > 0 {
                return false;
            }
            self.metrics.instances.dec_by(count(&known.instances));
            endpoints.remove(endpoint);
        }
        true
    }

    /// How many endpoints are on it.
    #[cfg(test)]
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.lock().len()
    }

    fn subscribe(&self, endpoint: &EndpointId) -> (InstanceEvent, Changes) {
        let mut endpoints = self.endpoints.lock();
        let known = known(&mut endpoints, endpoint);
        let changes = Changes {
            board: self.clone(),
            endpoint: endpoint.clone(),
            receiver: Some(known.changes.subscribe()),
        };
        (InstanceEvent::Present(known.list()), changes)
    }

    fn change(
        &self,
        endpoint: &EndpointId,
        change: impl FnOnce(&mut Known) -> Option<InstanceEvent>,
    ) {
        let mut endpoints = self.endpoints.lock();
        let known = known(&mut endpoints, endpoint);
        let before = count(&known.instances);
        if let Some(event) = change(known) {
            // That nobody watches is no failure.
            let _ = known.changes.send(event);
            let depth = i64::try_from(known.changes.len()).unwrap_or(i64::MAX);
            self.metrics.watch_depth.set(depth);
        }
        self.metrics
            .instances
            .inc_by(count(&known.instances) - before);
        tidy(&mut endpoints, endpoint);
    }
}

impl Known {
    fn list(&self) -> Vec<Instance> {
        self.instances.values().cloned().collect()
    }
}

fn known<'a>(
    endpoints: &'a mut HashMap<EndpointId, Known>,
    endpoint: &EndpointId,
) -> &'a mut Known {
    endpoints.entry(endpoint.clone()).or_insert_with(|| Known {
        instances: BTreeMap::new(),
        changes: broadcast::Sender::new(CHANGES),
    })
}

/// Forgets an endpoint that nobody serves or watches.
fn tidy(endpoints: &mut HashMap<EndpointId, Known>, endpoint: &EndpointId) {
    let is_unused =
        |known: &Known| known.instances.is_empty() && known.changes.receiver_count() == 0;
    if endpoints.get(endpoint).is_some_and(is_unused) {
        endpoints.remove(endpoint);
    }
}

fn count(instances: &BTreeMap<WorkerId, Instance>) -> i64 {
    i64::try_from(instances.len()).unwrap_or(i64::MAX)
}

/// A watcher's part.
struct Changes {
    board: Board,
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
                let (present, changes) = self.board.subscribe(&self.endpoint);
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
        tidy(&mut self.board.endpoints.lock(), &self.endpoint);
    }
}
