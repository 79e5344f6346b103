use std::fmt;
use std::io;
use std::time::Duration;

use forebay_observability::ErrorChain;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::timeout;

use crate::cause::CancelCause;
use crate::config::ShutdownConfig;
use crate::health::Health;
use crate::outcome::{Outcome, TaskEnd};
use crate::signal::{Signal, signals};
use crate::tasks::{RunningTask, TaskKind, Tasks};

/// Why a shutdown began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownCause {
    /// The process got a signal.
    Signal(Signal),
    /// A critical task ended, for whatever reason.
    TaskEnded {
        /// The task's name.
        name: &'static str,
        /// How it ended.
        end: TaskEnd,
    },
    /// The program wanted it, for this reason.
    Requested(&'static str),
}

impl fmt::Display for ShutdownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => f.write_str(signal.as_str()),
            Self::TaskEnded { name, end } => write!(f, "task {name} {}", end.as_str()),
            Self::Requested(reason) => f.write_str(reason),
        }
    }
}

/// How a process ends, in this order:
///
/// 1. readiness goes off, background tasks are cancelled;
/// 2. it deregisters, so that nothing new is sent to it;
/// 3. requests in flight drain, up to the grace period;
/// 4. what is left of them is killed with [`CancelCause::Shutdown`] and may still say so to its
///    client;
/// 5. every task is cancelled and waited for; what does not end is named, and dropped if it can
///    be;
/// 6. telemetry is flushed.
///
/// Every phase is bounded by [`ShutdownConfig`], and a second signal ends the order at once.
pub struct Shutdown {
    config: ShutdownConfig,
    deregister: Vec<(&'static str, BoxFuture<'static, Ended>)>,
    flush: Vec<(&'static str, Flush)>,
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Flush = Box<dyn FnOnce() -> Ended + Send>;

/// What a shutdown came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Why it began.
    pub cause: ShutdownCause,
    /// Whether every request ended by itself within the grace period.
    pub drained: bool,
    /// What did not end although it was cancelled.
    pub unfinished: Vec<RunningTask>,
    /// The steps of deregistering and flushing that failed or took too long, by name.
    pub failed_steps: Vec<&'static str>,
    /// The second signal, if one cut the order short.
    pub forced: Option<Signal>,
}

impl ShutdownReport {
    /// The exit code that tells it: 0 after a shutdown that was asked for and in which every task
    /// ended, even if requests were cut at the end of the grace period; 128 and the signal's
    /// number if a second signal forced it; else 1.
    pub fn exit_code(&self) -> u8 {
        match (self.forced, self.cause) {
            (Some(signal), _) => signal.exit_code(),
            (None, ShutdownCause::TaskEnded { .. }) => 1,
            (None, _) => u8::from(!self.unfinished.is_empty()),
        }
    }
}

impl Shutdown {
    /// A shutdown with nothing to deregister or flush.
    pub fn new(config: ShutdownConfig) -> Self {
        Self {
            config,
            deregister: Vec::new(),
            flush: Vec::new(),
        }
    }

    /// Adds a step that tells others to send nothing here any more; all of these run at the same
    /// time.
    pub fn deregister<F>(mut self, name: &'static str, step: F) -> Self
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let step = async { step.await.into_failure().map_or(Ok(()), Err) };
        self.deregister.push((name, step.boxed()));
        self
    }

    /// Adds a step, which may block, that delivers what would be lost with the process; these run
    /// in the order in which they were added, after everything else has ended.
    pub fn flush<O: Outcome>(
        mut self,
        name: &'static str,
        step: impl FnOnce() -> O + Send + 'static,
    ) -> Self {
        let step = || step().into_failure().map_or(Ok(()), Err);
        self.flush.push((name, Box::new(step)));
        self
    }

    /// Waits until a signal, the end of a critical task or [`Tasks::begin_shutdown`] begins the
    /// shutdown, and carries it out.
    ///
    /// SIGINT and SIGTERM end the process by themselves until this is first polled, and never
    /// after. When a second signal forces the end, tasks may still run: leave the process with
    /// [`std::process::exit`], which waits for none.
    ///
    /// # Errors
    ///
    /// If the signal handlers cannot be installed.
    pub async fn run(self, tasks: &Tasks, health: &Health) -> io::Result<ShutdownReport> {
        Ok(self.run_with(tasks, health, signals()?).await)
    }

    /// The same with signals from elsewhere: for a program that handles them itself, and for
    /// tests.
    pub async fn run_with(
        self,
        tasks: &Tasks,
        health: &Health,
        mut signals: impl Stream<Item = Signal> + Unpin,
    ) -> ShutdownReport {
        let cause = tokio::select! {
            biased;
            cause = tasks.shutdown_begun() => cause,
            Some(signal) = signals.next() => {
                tasks.begin_shutdown(ShutdownCause::Signal(signal));
                tasks.shutdown_begun().await
            }
        };
        let mut report = ShutdownReport {
            cause,
            drained: false,
            unfinished: Vec::new(),
            failed_steps: Vec::new(),
            forced: None,
        };
        let forced = tokio::select! {
            biased;
            Some(signal) = signals.next() => Some(signal),
            () = self.carry_out(tasks, health, &mut report) => None,
        };
        if let Some(signal) = forced {
            tracing::warn!(signal = signal.as_str(), "second signal: leaving at once");
            report.forced = Some(signal);
            report.unfinished = tasks.running();
        }
        report
    }

    async fn carry_out(self, tasks: &Tasks, health: &Health, report: &mut ShutdownReport) {
        let (grace, phase) = (self.config.grace(), self.config.phase());
        tracing::info!(cause = %report.cause, "shutting down");
        health.drain();
        tasks.cancel(TaskKind::Background);

        let steps = self
            .deregister
            .into_iter()
            .map(|(name, step)| run_step(tasks, name, step, phase));
        report.failed_steps = join_all(steps).await.into_iter().flatten().collect();

        report.drained = timeout(grace, tasks.ended(TaskKind::Request)).await.is_ok();
        tasks.requests().kill(CancelCause::Shutdown);
        if !report.drained {
            tracing::warn!(
                grace_seconds = grace.as_secs_f64(),
                running = ?tasks.running(),
                "requests did not end within the grace period"
            );
            // They see the kill and may tell their clients; those that do not are cut below.
            let _ = timeout(phase, tasks.ended(TaskKind::Request)).await;
        }

        for kind in TaskKind::ALL {
            tasks.cancel(kind);
        }
        let all = join_all(TaskKind::ALL.map(|kind| tasks.ended(kind)));
        if timeout(phase, all).await.is_err() {
            report.unfinished = tasks.running();
            for task in &report.unfinished {
                tracing::error!(
                    kind = task.kind.as_str(),
                    task = task.name,
                    count = task.count,
                    "task did not end although it was cancelled"
                );
            }
            tasks.abort();
        }

        tracing::info!(drained = report.drained, "shut down");
        for (name, step) in self.flush {
            report
                .failed_steps
                .extend(run_flush(tasks, name, step, phase).await);
        }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Gives the step's name if it failed or took too long.
async fn run_step(
    tasks: &Tasks,
    name: &'static str,
    step: BoxFuture<'static, Ended>,
    limit: Duration,
) -> Option<&'static str> {
    let mut task = tasks.spawn(TaskKind::Critical, name, step);
    let end = timeout(limit, task.ended()).await;
    task.cancel();
    failed(name, end.ok())
}

async fn run_flush(
    tasks: &Tasks,
    name: &'static str,
    step: Flush,
    limit: Duration,
) -> Option<&'static str> {
    let end = match timeout(limit, tasks.run_last(name, step)).await {
        Ok(Ok(Ok(()))) => Some(TaskEnd::Finished),
        Ok(Ok(Err(error))) => {
            let error = ErrorChain(&*error);
            tracing::error!(step = name, %error, "a step of the shutdown failed");
            Some(TaskEnd::Failed)
        }
        Ok(Err(_)) => Some(TaskEnd::Panicked),
        Err(_) => None,
    };
    failed(name, end)
}

fn failed(name: &'static str, end: Option<TaskEnd>) -> Option<&'static str> {
    if end.is_none() {
        tracing::error!(step = name, "a step of the shutdown took too long");
    }
    (end != Some(TaskEnd::Finished)).then_some(name)
}

#[cfg(test)]
mod tests;
