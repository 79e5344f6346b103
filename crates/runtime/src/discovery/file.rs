//! A directory as discovery.

mod directory;
mod keeper;
mod leases;
mod reader;
mod service;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod watchdog;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use forebay_observability::Registry;
use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::board::Board;
use super::metrics::Metrics;
use super::{Discovery, Instance, Registration, Watch};
use crate::health::Health;
use crate::names::EndpointId;
use crate::planes::PlaneError;
use crate::random::random;
use crate::tasks::{TaskHandle, TaskKind, Tasks};
use directory::{Directory, FileError};
use keeper::Keeper;
use leases::Leases;
use service::{Clock, Order, Service};

/// Orders that may wait for the thread that works on the directory.
const ORDERS: usize = 1024;
/// How long an order may take; less than the phase of a shutdown in which goodbyes are said.
const ANSWER: Duration = Duration::from_secs(4);

/// Where a [`FileDiscovery`] is, and how it keeps time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// The directory; it is made if it is not there. All processes must be able to write to it.
    pub directory: PathBuf,
    /// How long an instance is known after its process was last seen alive; 100 ms at least.
    pub ttl: Duration,
    /// How often the directory is looked at.
    pub poll: Duration,
}

impl FileConfig {
    /// The directory `directory`, with a time to live of 10 s, looked at every 200 ms.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            ttl: Duration::from_secs(10),
            poll: Duration::from_millis(200),
        }
    }
}

/// Discovery by a directory that the processes share: on one machine, or by a network file system.
///
/// Each instance is a file, and each process one more that it keeps changing. Readers take an
/// instance for expired by their own clock, counted from when they last saw its process's file
/// change: no clocks of two machines are compared. While the directory cannot be used the last
/// known instances stay. A process that ends removes its files; what dead ones left, the others
/// remove after minutes. Files that are not regular ones of at most 1 MiB are left alone.
///
/// Clones are handles on the same discovery. It works on a thread of its own, a critical task, which
/// may wait for the file system. What is asked of it fails after 4 s, and a directory that does not
/// answer for 2 s is told in `health`.
#[derive(Clone, Debug)]
pub struct FileDiscovery {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    orders: SyncSender<Order>,
    task: TaskHandle,
}

impl FileDiscovery {
    /// Opens the directory. Its metrics go to `registry`, and `health` says when it cannot be used.
    ///
    /// # Errors
    ///
    /// [`PlaneError::Unreachable`], if the directory cannot be made or written to.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open(
        config: FileConfig,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<Self, PlaneError> {
        let (ttl, poll) = (config.ttl.max(Duration::from_millis(100)), config.poll);
        let directory = Directory::open(config.directory).map_err(unreachable)?;
        let metrics = Metrics::new(registry);
        let keeper = Keeper::new(directory.clone(), random(), ttl, metrics.clone());
        let (tell, looks) = watch::channel(true);
        let service = Service {
            keeper,
            leases: Leases::new(directory.clone(), ttl),
            directory,
            poll,
            readers: HashMap::new(),
            board: Board::new(metrics.clone()),
            metrics: metrics.clone(),
            looks: tell,
            clock: Clock::start(),
        };
        let (orders, incoming) = sync_channel(ORDERS);
        let task = tasks
            .spawn_thread(TaskKind::Critical, "file discovery", move |cancel| {
                service.run(&incoming, &cancel);
            })
            .map_err(|error| PlaneError::Unreachable(error.into()))?;
        let degradation = health.degradation("discovery");
        let watching = watchdog::watch_over(looks, poll, metrics, degradation);
        tasks.spawn(TaskKind::Background, "file discovery watchdog", watching);
        Ok(Self {
            shared: Arc::new(Shared { orders, task }),
        })
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, FileError>>) -> Order,
    ) -> Result<T, PlaneError> {
        let (done, outcome) = oneshot::channel();
        match self.shared.orders.try_send(order(done)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(PlaneError::Unreachable(Stuck::Busy.into())),
            Err(TrySendError::Disconnected(_)) => {
                return Err(PlaneError::Unreachable(Stuck::Ended.into()));
            }
        }
        match timeout(ANSWER, outcome).await {
            Ok(Ok(outcome)) => outcome.map_err(unreachable),
            Err(_) => Err(PlaneError::Unreachable(Stuck::Busy.into())),
            Ok(Err(_)) => Err(PlaneError::Unreachable(Stuck::Ended.into())),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.cancel();
    }
}

/// Why the thread does not answer.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error("the directory takes too long")]
    Busy,
    #[error("the process is ending")]
    Ended,
}

impl Discovery for FileDiscovery {
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        async move {
            let alive = Arc::new(());
            let (registration, owner) = (Arc::downgrade(&alive), random());
            let key = (instance.endpoint.clone(), instance.worker);
            self.ask(|done| Order::Register {
                instance,
                owner,
                registration,
                done,
            })
            .await?;
            let registered = Registered {
                discovery: self.clone(),
                key,
                owner,
                alive,
            };
            Ok(Box::new(registered) as Box<dyn Registration>)
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        let endpoint = endpoint.clone();
        self.ask(|done| Order::List { endpoint, done }).boxed()
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        let endpoint = endpoint.clone();
        self.ask(|done| Order::Watch { endpoint, done }).boxed()
    }
}

/// The part of who registered. Once it is dropped the thread notices at its next look.
struct Registered {
    discovery: FileDiscovery,
    key: (EndpointId, WorkerId),
    owner: u64,
    alive: Arc<()>,
}

impl Registration for Registered {
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), PlaneError>> {
        async move {
            let Self {
                discovery,
                key,
                owner,
                alive,
            } = *self;
            let left = discovery.ask(|done| Order::Leave { key, owner, done });
            let left = left.await;
            drop(alive);
            left
        }
        .boxed()
    }
}

fn unreachable(error: FileError) -> PlaneError {
    PlaneError::Unreachable(error.into())
}
