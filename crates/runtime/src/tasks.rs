use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use forebay_observability::{ErrorChain, Gauge, Registry};
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use crate::metrics::Metrics;
use crate::outcome::{Outcome, TaskEnd};
use crate::scope::CancelScope;
use crate::shutdown::ShutdownCause;

/// What a task is to its process: when a shutdown ends it, and what its own end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TaskKind {
    /// The process is of no use without it: an accept loop, an engine's step loop. If it ends
    /// before a shutdown, in whatever way, a shutdown begins. Cancelled after requests have
    /// drained.
    Critical,
    /// Work for a client: a connection, a stream. Its failure is the request's own. A shutdown
    /// lets it go on for the grace period, then cancels it.
    Request,
    /// Upkeep: a refresh, a report. Its failure is logged and counted. Cancelled as soon as a
    /// shutdown begins.
    Background,
}

impl TaskKind {
    pub(crate) const ALL: [Self; 3] = [Self::Critical, Self::Request, Self::Background];

    /// A stable name in snake case, for metric labels and log fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Request => "request",
            Self::Background => "background",
        }
    }
}

/// The only way to spawn: every task has a kind and a name, is counted while it runs, and its
/// panic is caught, logged and counted. A cheap handle that components clone.
///
/// A task is cancelled in one of two ways, chosen where it is spawned: [`Tasks::spawn`] drops the
/// future at its next await; [`Tasks::spawn_cooperative`] and [`Tasks::spawn_thread`] hand a token
/// over and trust the task to end soon after it is cancelled.
///
/// Metrics: `forebay_tasks_running{kind,task}`, `forebay_tasks_ended_total{kind,task,end}`,
/// `forebay_tasks_blocking_waiting`, `forebay_tasks_blocking_limit`.
///
/// When *not* to use it: for futures that one task polls together (`join!`, `FuturesUnordered`),
/// and in pure crates, which have no tasks.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    groups: [Group; TaskKind::ALL.len()],
    requests: CancelScope,
    shutdown: CancellationToken,
    cause: OnceLock<ShutdownCause>,
    /// Drops the futures of cooperative tasks that did not end when they were asked to.
    abort: CancellationToken,
    running: Mutex<BTreeMap<(TaskKind, &'static str), Arc<Running>>>,
    blocking: Arc<Semaphore>,
    metrics: Metrics,
}

/// The tasks of one kind.
#[derive(Default)]
struct Group {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

/// How many tasks of one kind and name run.
struct Running {
    count: AtomicUsize,
    gauge: Gauge,
}

/// Tasks of one kind and name that run at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningTask {
    /// Their kind.
    pub kind: TaskKind,
    /// Their name.
    pub name: &'static str,
    /// How many; at least 1.
    pub count: usize,
}

impl Tasks {
    /// Tasks whose metrics go to `registry`, with as many blocking threads as the machine has
    /// cores.
    pub fn new(registry: &Registry) -> Self {
        let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self::with_blocking_limit(registry, cores)
    }

    /// The same with another bound on how many [`Tasks::run_blocking`] calls run at a time.
    pub fn with_blocking_limit(registry: &Registry, limit: NonZeroUsize) -> Self {
        let metrics = Metrics::new(registry);
        metrics
            .blocking_limit
            .set(i64::try_from(limit.get()).unwrap_or(i64::MAX));
        Self {
            inner: Arc::new(Inner {
                groups: Default::default(),
                requests: CancelScope::new(),
                shutdown: CancellationToken::new(),
                cause: OnceLock::new(),
                abort: CancellationToken::new(),
                running: Mutex::default(),
                blocking: Arc::new(Semaphore::new(limit.get().min(Semaphore::MAX_PERMITS))),
                metrics,
            }),
        }
    }

    /// Spawns a future that is dropped at its next await when it is cancelled.
    ///
    /// A [`TaskKind::Request`] task runs in the caller's span, so that what it logs carries the
    /// request's id; the others run in none.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn<F>(&self, kind: TaskKind, name: &'static str, future: F) -> TaskHandle
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let cancel = self.group(kind).cancel.child_token();
        self.spawn_until(kind, name, cancel.clone(), cancel, future)
    }

    /// Spawns a future that is told through the token when it is cancelled, and then has to end
    /// by itself: for tasks that must put something in order. A shutdown drops it if it takes
    /// too long.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn_cooperative<F>(
        &self,
        kind: TaskKind,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> F,
    ) -> TaskHandle
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let cancel = self.group(kind).cancel.child_token();
        let future = task(cancel.clone());
        self.spawn_until(kind, name, cancel, self.inner.abort.clone(), future)
    }

    fn spawn_until<F>(
        &self,
        kind: TaskKind,
        name: &'static str,
        cancel: CancellationToken,
        drop_at: CancellationToken,
        future: F,
    ) -> TaskHandle
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let run = self.begin(kind, name, cancel.clone());
        let (ended, handle) = TaskHandle::new(cancel);
        let span = match kind {
            TaskKind::Request => Span::current(),
            TaskKind::Critical | TaskKind::Background => Span::none(),
        };
        let task = async move {
            let guarded = async {
                tokio::select! {
                    biased;
                    () = drop_at.cancelled() => None,
                    outcome = future => Some(outcome),
                }
            };
            let end = match AssertUnwindSafe(guarded).catch_unwind().await {
                Ok(None) => run.end(TaskEnd::Cancelled),
                Ok(Some(outcome)) => run.returned(outcome),
                Err(panic) => run.panicked(&*panic),
            };
            // Nobody may be waiting for it.
            let _ = ended.send(end);
        };
        self.group(kind).tracker.spawn(task.instrument(span));
        handle
    }

    /// Starts a thread for work that blocks for the whole of its life, such as an engine's step
    /// loop. It has to look at the token often and end soon after it is cancelled; nothing can
    /// end it from outside.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub fn spawn_thread<O: Outcome>(
        &self,
        kind: TaskKind,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> O + Send + 'static,
    ) -> io::Result<TaskHandle> {
        let cancel = self.group(kind).cancel.child_token();
        let run = self.begin(kind, name, cancel.clone());
        let tracked = self.group(kind).tracker.token();
        let (ended, handle) = TaskHandle::new(cancel.clone());
        thread::Builder::new().name(name.into()).spawn(move || {
            let end = match catch_unwind(AssertUnwindSafe(|| task(cancel))) {
                Ok(outcome) => run.returned(outcome),
                Err(panic) => run.panicked(&*panic),
            };
            // Nobody may be waiting for it.
            let _ = ended.send(end);
            drop(tracked);
        })?;
        Ok(handle)
    }

    /// Runs one piece of work that is too long for an async thread (over 500 us): waits for one
    /// of the bounded number of threads, runs `work` there in the caller's span, and gives its
    /// result. A shutdown treats it as a [`TaskKind::Request`].
    ///
    /// Dropping the future gives up the wait; work that has begun goes on to its end, and its
    /// result is dropped.
    ///
    /// # Errors
    ///
    /// [`BlockingError::Panicked`] if `work` panicked; [`BlockingError::Cancelled`] if a shutdown
    /// cancelled it before it began.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        let kind = TaskKind::Request;
        let group = self.group(kind);
        let permit = {
            let _waiting = Waiting::new(&self.inner.metrics.blocking_waiting);
            tokio::select! {
                biased;
                () = group.cancel.cancelled() => return Err(BlockingError::Cancelled),
                permit = self.inner.blocking.clone().acquire_owned() => {
                    permit.expect("the semaphore is never closed")
                }
            }
        };
        let work = move || {
            let _permit = permit;
            work()
        };
        self.run_at_once(kind, name, group.cancel.clone(), work)
            .await
    }

    /// [`Tasks::run_blocking`] for the last steps of a shutdown: neither bounded nor cancelled.
    pub(crate) async fn run_last<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        self.run_at_once(TaskKind::Critical, name, CancellationToken::new(), work)
            .await
    }

    async fn run_at_once<T: Send + 'static>(
        &self,
        kind: TaskKind,
        name: &'static str,
        cancel: CancellationToken,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        let run = self.begin(kind, name, cancel);
        let span = Span::current();
        let work = move || {
            let _entered = span.entered();
            match catch_unwind(AssertUnwindSafe(work)) {
                Ok(value) => {
                    run.end(TaskEnd::Finished);
                    Ok(value)
                }
                Err(panic) => {
                    run.panicked(&*panic);
                    Err(BlockingError::Panicked)
                }
            }
        };
        match self.group(kind).tracker.spawn_blocking(work).await {
            Ok(result) => result,
            // The work catches its own panics, so the runtime is being dropped.
            Err(_) => Err(BlockingError::Cancelled),
        }
    }

    /// The scope of all requests in this process: make every request's
    /// [`Context`](crate::Context) in it. A shutdown kills it, with
    /// [`CancelCause::Shutdown`](crate::CancelCause::Shutdown), when the grace period is over.
    pub fn requests(&self) -> &CancelScope {
        &self.inner.requests
    }

    /// Whether any request goes on: something made in the scope of [`Self::requests`] is left, or
    /// another handle on that scope. What requests need, such as to know who is there, stays until
    /// there is none.
    pub fn has_requests(&self) -> bool {
        self.inner.requests.is_shared()
    }

    /// Begins a shutdown, which [`Shutdown::run`](crate::Shutdown::run) then carries out; false
    /// if one has begun before.
    pub fn begin_shutdown(&self, cause: ShutdownCause) -> bool {
        let first = self.inner.cause.set(cause).is_ok();
        if first {
            self.inner.shutdown.cancel();
        }
        first
    }

    /// Waits until a shutdown begins, and tells why. A task that serves a connection takes this
    /// as the hint to finish what it has and accept nothing more. Cancel-safe.
    pub async fn shutdown_begun(&self) -> ShutdownCause {
        self.inner.shutdown.cancelled().await;
        *self
            .inner
            .cause
            .get()
            .expect("the cause is set before the token is cancelled")
    }

    /// Whether a shutdown has begun.
    pub fn is_shutting_down(&self) -> bool {
        self.inner.shutdown.is_cancelled()
    }

    /// What runs now, by kind and name.
    pub fn running(&self) -> Vec<RunningTask> {
        let running = self.inner.running.lock();
        let counted = running.iter().map(|(&(kind, name), running)| RunningTask {
            kind,
            name,
            count: running.count.load(Ordering::Relaxed),
        });
        counted.filter(|task| task.count > 0).collect()
    }

    /// Cancels the tasks of one kind.
    pub(crate) fn cancel(&self, kind: TaskKind) {
        self.group(kind).cancel.cancel();
    }

    /// Drops the futures of cooperative tasks.
    pub(crate) fn abort(&self) {
        self.inner.abort.cancel();
    }

    /// Waits until no task of this kind runs. Cancel-safe.
    pub(crate) async fn ended(&self, kind: TaskKind) {
        let tracker = &self.group(kind).tracker;
        tracker.close();
        tracker.wait().await;
    }

    fn group(&self, kind: TaskKind) -> &Group {
        &self.inner.groups[kind as usize]
    }

    fn begin(&self, kind: TaskKind, name: &'static str, cancel: CancellationToken) -> Run {
        let running = self
            .inner
            .running
            .lock()
            .entry((kind, name))
            .or_insert_with(|| {
                Arc::new(Running {
                    count: AtomicUsize::new(0),
                    gauge: self.inner.metrics.running(kind, name),
                })
            })
            .clone();
        running.count.fetch_add(1, Ordering::Relaxed);
        running.gauge.inc();
        Run {
            tasks: self.clone(),
            kind,
            name,
            cancel,
            running,
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("running", &self.running())
            .field("shutdown", &self.inner.cause.get())
            .finish_non_exhaustive()
    }
}

/// One task from its spawn to its end; counted until it is dropped.
struct Run {
    tasks: Tasks,
    kind: TaskKind,
    name: &'static str,
    cancel: CancellationToken,
    running: Arc<Running>,
}

impl Run {
    fn returned(self, outcome: impl Outcome) -> TaskEnd {
        let Some(error) = outcome.into_failure() else {
            return self.end(TaskEnd::Finished);
        };
        let (kind, task) = (self.kind.as_str(), self.name);
        let error = ErrorChain(&*error);
        match self.kind {
            TaskKind::Critical => tracing::error!(kind, task, %error, "task failed"),
            TaskKind::Request | TaskKind::Background => {
                tracing::warn!(kind, task, %error, "task failed");
            }
        }
        self.end(TaskEnd::Failed)
    }

    fn panicked(self, panic: &(dyn Any + Send)) -> TaskEnd {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let (kind, task) = (self.kind.as_str(), self.name);
        tracing::error!(kind, task, panic = message, "task panicked");
        self.end(TaskEnd::Panicked)
    }

    fn end(self, end: TaskEnd) -> TaskEnd {
        let (kind, name) = (self.kind, self.name);
        self.tasks.inner.metrics.count_end(kind, name, end);
        if kind == TaskKind::Critical && !self.cancel.is_cancelled() {
            self.tasks
                .begin_shutdown(ShutdownCause::TaskEnded { name, end });
        }
        end
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.running.count.fetch_sub(1, Ordering::Relaxed);
        self.running.gauge.dec();
    }
}

/// Counts a caller that waits for a blocking thread.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A task that was spawned. Dropping the handle leaves the task alone.
#[derive(Debug)]
pub struct TaskHandle {
    cancel: CancellationToken,
    receiver: oneshot::Receiver<TaskEnd>,
    end: Option<TaskEnd>,
}

impl TaskHandle {
    fn new(cancel: CancellationToken) -> (oneshot::Sender<TaskEnd>, Self) {
        let (sender, receiver) = oneshot::channel();
        let handle = Self {
            cancel,
            receiver,
            end: None,
        };
        (sender, handle)
    }

    /// Cancels this one task, in the way it was spawned for. For a critical task this is no
    /// reason to shut down.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits for the task's end. Cancel-safe.
    pub async fn ended(&mut self) -> TaskEnd {
        if let Some(end) = self.end {
            return end;
        }
        // Without an answer the runtime dropped the task.
        let end = (&mut self.receiver).await.unwrap_or(TaskEnd::Cancelled);
        self.end = Some(end);
        end
    }
}

/// Why [`Tasks::run_blocking`] has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockingError {
    /// The work panicked; the log has the message.
    #[error("blocking work panicked")]
    Panicked,
    /// A shutdown came before the work began.
    #[error("blocking work was cancelled by a shutdown")]
    Cancelled,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
