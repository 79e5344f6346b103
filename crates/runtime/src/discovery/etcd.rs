//! etcd as discovery.

mod access;
mod availability;
mod back_off;
mod keeper;
mod seen;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_observability::{ErrorChain, Registry};
use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::board::Board;
use super::metrics::Metrics;
use super::{Discovery, Instance, Registration, Watch, record};
use crate::health::Health;
use crate::names::EndpointId;
use crate::planes::{EtcdConfig, PlaneError};
use crate::random::random;
use crate::tasks::{TaskHandle, TaskKind, Tasks};
use access::{Access, EtcdError};
use availability::Availability;
use back_off::BackOff;
use keeper::{Keeper, Order, Told};
use watcher::Watcher;

/// Orders that may wait for the keeper.
const ORDERS: usize = 64;
/// How long a goodbye waits until it is confirmed.
const GOODBYE: Duration = Duration::from_secs(5);
/// What all keys begin with.
const ROOT: &str = "/forebay/v1/";

/// Where the etcd of an [`EtcdDiscovery`] is, and how long it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdDiscoveryConfig {
    /// The members of the cluster, each `HOST:PORT`.
    pub members: Vec<String>,
    /// Who this process is there, and TLS.
    pub access: EtcdConfig,
    /// How long an instance is known after its process was last heard of; whole seconds, 1 at
    /// least. etcd has a least time of its own, about 2 s.
    pub ttl: Duration,
    /// How long a start waits for etcd, and later each registration, list and new watch.
    pub connect_timeout: Duration,
}

/// Discovery by etcd: each instance is a key, `/forebay/v1/NAMESPACE/COMPONENT/ENDPOINT/WORKER`,
/// and all keys of a process live by one lease.
///
/// Once it is connected it outlives any outage of etcd: the last known instances stay, what this
/// process registered is registered again, and watches go on. Attempts to reach it are at most
/// 250 ms apart.
///
/// Clones are handles on the same discovery.
#[derive(Clone)]
pub struct EtcdDiscovery {
    shared: Arc<Shared>,
}

struct Shared {
    config: EtcdDiscoveryConfig,
    access: Access,
    availability: Availability,
    metrics: Metrics,
    tasks: Tasks,
    board: Board,
    /// The endpoints that are followed, and whether the board is right about them yet.
    followed: Arc<Mutex<HashMap<EndpointId, watch::Receiver<bool>>>>,
    orders: mpsc::Sender<Order>,
    dropped: Arc<Notify>,
    keeper: TaskHandle,
}

/// Why etcd cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("etcd at {members} does not answer within {seconds} s")]
    Away {
        members: String,
        seconds: f64,
        #[source]
        last: Option<EtcdError>,
    },
    #[error("the process is ending")]
    Ended,
}

impl EtcdDiscovery {
    /// Connects, and waits for etcd up to the connect timeout. Tasks are of `tasks`, metrics go to
    /// `registry`, and `health` says when etcd is away; until it is there for the first time, the
    /// process is not ready.
    ///
    /// # Errors
    ///
    /// [`PlaneError::Unreachable`], which names the members: if none of them answers in time, if
    /// they do not let this process in, or if a certificate cannot be read.
    pub async fn connect(
        config: EtcdDiscoveryConfig,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<Self, PlaneError> {
        let metrics = Metrics::new(registry);
        let availability = Availability::new(health, metrics.clone());
        let deadline = Instant::now() + config.connect_timeout;
        let access = until(&config, deadline, || async {
            let access = Access::open(&config.members, &config.access).await?;
            access.probe(ROOT).await?;
            Ok(access)
        })
        .await?;
        availability.begin();
        let (orders, incoming) = mpsc::channel(ORDERS);
        let dropped = Arc::new(Notify::new());
        let keeper = Keeper::new(
            access.clone(),
            availability.clone(),
            metrics.clone(),
            config.ttl,
        );
        let notify = dropped.clone();
        let keeper = tasks.spawn_cooperative(TaskKind::Critical, "etcd lease", |cancel| {
            keeper.run(incoming, notify, cancel)
        });
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                access,
                availability,
                board: Board::new(metrics.clone()),
                metrics,
                tasks: tasks.clone(),
                followed: Arc::default(),
                orders,
                dropped,
                keeper,
            }),
        })
    }

    /// Has an endpoint followed; the receiver says whether the board is right about it. It stays
    /// followed while the board has a watcher of it.
    fn follow(&self, endpoint: &EndpointId) -> (Watch, watch::Receiver<bool>) {
        let shared = &self.shared;
        let mut followed = shared.followed.lock();
        let guard = shared.board.watch(endpoint);
        if let Some(ready) = followed.get(endpoint)
            // A task that is being cancelled follows no more.
            && ready.has_changed().is_ok()
        {
            return (guard, ready.clone());
        }
        let (ready, is_ready) = watch::channel(false);
        followed.insert(endpoint.clone(), is_ready.clone());
        let watcher = Watcher::new(
            shared.access.clone(),
            shared.availability.clone(),
            shared.metrics.clone(),
            shared.board.clone(),
            endpoint.clone(),
        );
        let (board, all, endpoint) = (
            shared.board.clone(),
            shared.followed.clone(),
            endpoint.clone(),
        );
        let is_over = move || {
            let mut followed = all.lock();
            let is_over = board.forget(&endpoint);
            if is_over {
                followed.remove(&endpoint);
            }
            is_over
        };
        let ready = move || {
            ready.send_replace(true);
        };
        // As long as requests go on: they move to workers that come.
        let kind = TaskKind::Critical;
        let watching = |cancel: CancellationToken| async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                // That nobody follows any more is no reason to end the process.
                () = watcher.run(ready, is_over) => cancel.cancel(),
            }
        };
        shared.tasks.spawn_cooperative(kind, "etcd watch", watching);
        (guard, is_ready)
    }

    fn away(&self, waited: Duration) -> PlaneError {
        away(&self.shared.config, waited, None)
    }

    async fn order(
        &self,
        patience: Duration,
        order: impl FnOnce(Told) -> Order,
    ) -> Result<(), PlaneError> {
        let (done, is_done) = oneshot::channel();
        let carried_out = async {
            let sent = self.shared.orders.send(order(done)).await;
            sent.map_err(|_| Unusable::Ended)?;
            is_done.await.map_err(|_| Unusable::Ended)
        };
        match timeout(patience, carried_out).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(refused))) => Err(PlaneError::Refused(refused.into())),
            Ok(Err(ended)) => Err(PlaneError::Unreachable(ended.into())),
            Err(_) => Err(self.away(patience)),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.cancel();
    }
}

impl Discovery for EtcdDiscovery {
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        async move {
            let alive = Arc::new(());
            let (registration, owner) = (Arc::downgrade(&alive), random());
            let key = (instance.endpoint.clone(), instance.worker);
            let registered = Registered {
                discovery: self.clone(),
                key,
                owner,
                alive: Some(alive),
            };
            self.order(self.shared.config.connect_timeout, |done| Order::Register {
                instance,
                owner,
                registration,
                done,
            })
            .await?;
            Ok(Box::new(registered) as Box<dyn Registration>)
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        async move {
            let shared = &self.shared;
            let deadline = Instant::now() + shared.config.connect_timeout;
            let prefix = prefix(endpoint);
            let (keys, _) = until(&shared.config, deadline, || shared.access.list(&prefix)).await?;
            let records = keys.iter().filter_map(|key| {
                let name = key.key().strip_prefix(prefix.as_bytes())?;
                let worker = record::worker(str::from_utf8(name).ok()?)?;
                record::read(key.value(), endpoint, worker).ok()
            });
            Ok(records
                .filter(|record| !record.leaving)
                .map(|record| record::instance(record, endpoint))
                .collect())
        }
        .boxed()
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        async move {
            // What it shows now may not be right yet; it keeps the endpoint followed.
            let (guard, mut ready) = self.follow(endpoint);
            let patience = self.shared.config.connect_timeout;
            match timeout(patience, ready.wait_for(|ready| *ready)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(PlaneError::Unreachable(Unusable::Ended.into())),
                Err(_) => return Err(self.away(patience)),
            }
            let watch = self.shared.board.watch(endpoint);
            drop(guard);
            Ok(watch)
        }
        .boxed()
    }
}

/// The part of who registered.
struct Registered {
    discovery: EtcdDiscovery,
    key: (EndpointId, WorkerId),
    owner: u64,
    /// Taken when it is dropped.
    alive: Option<Arc<()>>,
}

impl Registration for Registered {
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), PlaneError>> {
        async move {
            let (key, owner) = (self.key.clone(), self.owner);
            let left = self
                .discovery
                .order(GOODBYE, |done| Order::Leave { key, owner, done });
            left.await
        }
        .boxed()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.alive.take());
        self.discovery.shared.dropped.notify_one();
    }
}

/// Tries until it works or the time is over.
async fn until<T, F>(
    config: &EtcdDiscoveryConfig,
    deadline: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, PlaneError>
where
    F: Future<Output = Result<T, EtcdError>>,
{
    let mut back_off = BackOff::new();
    let mut last = None;
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error @ EtcdError::Unreadable { .. })) => {
                return Err(PlaneError::Unreachable(error.into()));
            }
            Ok(Err(error)) => {
                if last.is_none() {
                    let members = config.members.join(",");
                    warn!(members, error = %ErrorChain(&error), "etcd is waited for");
                }
                last = Some(error);
            }
            Err(_) => return Err(away(config, config.connect_timeout, last)),
        }
        if timeout_at(deadline, sleep(back_off.wait())).await.is_err() {
            return Err(away(config, config.connect_timeout, last));
        }
    }
}

fn away(config: &EtcdDiscoveryConfig, waited: Duration, last: Option<EtcdError>) -> PlaneError {
    let error = Unusable::Away {
        members: config.members.join(","),
        seconds: waited.as_secs_f64(),
        last,
    };
    PlaneError::Unreachable(error.into())
}

/// What the keys of an endpoint begin with.
fn prefix(endpoint: &EndpointId) -> String {
    format!("{ROOT}{endpoint}/")
}

/// The key of an instance.
fn key(endpoint: &EndpointId, worker: WorkerId) -> String {
    format!("{}{}", prefix(endpoint), record::name(worker))
}

/// A random number from 0 to 1.
fn fraction() -> f64 {
    f64::from((random() >> 32) as u32) / f64::from(u32::MAX)
}
