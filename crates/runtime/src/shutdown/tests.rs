use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use forebay_observability::Registry;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;

/// What happened, in order, with the virtual seconds since the start.
#[derive(Clone)]
struct Journal {
    begun: Instant,
    entries: Arc<Mutex<Vec<(u64, &'static str)>>>,
}

impl Journal {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            entries: Arc::default(),
        }
    }

    fn note(&self, what: &'static str) {
        self.entries
            .lock()
            .push((self.begun.elapsed().as_secs(), what));
    }

    fn entries(&self) -> Vec<(u64, &'static str)> {
        self.entries.lock().clone()
    }
}

/// Notes when it is dropped.
struct Dropped(Journal, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

fn config() -> ShutdownConfig {
    ShutdownConfig {
        grace_seconds: 30.0,
        phase_seconds: 5.0,
    }
}

fn no_signals() -> impl Stream<Item = Signal> + Unpin {
    futures::stream::pending()
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_goes_in_order() {
    let (tasks, health, journal) = (Tasks::new(&Registry::new()), Health::new(), Journal::new());
    let upkeep = Dropped(journal.clone(), "background cancelled");
    tasks.spawn(TaskKind::Background, "upkeep", async move {
        let _upkeep = upkeep;
        pending::<()>().await;
    });
    let (stream, note) = (tasks.clone(), journal.clone());
    tasks.spawn(TaskKind::Request, "stream", async move {
        stream.shutdown_begun().await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!stream.requests().is_killed());
        note.note("request drained");
    });
    let note = journal.clone();
    tasks.spawn_cooperative(TaskKind::Critical, "engine", |cancel| async move {
        cancel.cancelled().await;
        note.note("critical cancelled");
    });
    let (ready, note) = (health.clone(), journal.clone());
    let flush = journal.clone();
    let shutdown = Shutdown::new(config())
        .deregister("discovery", async move {
            assert!(!ready.is_ready(), "readiness goes off first");
            note.note("deregistered");
        })
        .flush("telemetry", move || flush.note("flushed"));
    tasks.begin_shutdown(ShutdownCause::Requested("test"));
    let report = shutdown.run_with(&tasks, &health, no_signals()).await;

    assert_eq!(
        journal.entries(),
        [
            (0, "background cancelled"),
            (0, "deregistered"),
            (20, "request drained"),
            (20, "critical cancelled"),
            (20, "flushed"),
        ]
    );
    assert!(report.drained && report.unfinished.is_empty() && report.failed_steps.is_empty());
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_past_the_grace_period_is_killed_and_may_say_so() {
    let (tasks, health, journal) = (Tasks::new(&Registry::new()), Health::new(), Journal::new());
    let (scope, note) = (tasks.requests().child(), journal.clone());
    tasks.spawn(TaskKind::Request, "polite", async move {
        assert_eq!(scope.killed().await, CancelCause::Shutdown);
        tokio::time::sleep(Duration::from_secs(1)).await;
        note.note("said goodbye");
    });
    let deaf = Dropped(journal.clone(), "deaf request cut");
    tasks.spawn(TaskKind::Request, "deaf", async move {
        let _deaf = deaf;
        pending::<()>().await;
    });
    tasks.begin_shutdown(ShutdownCause::Requested("test"));
    let report = Shutdown::new(config())
        .run_with(&tasks, &health, no_signals())
        .await;
    assert_eq!(
        journal.entries(),
        [(31, "said goodbye"), (35, "deaf request cut")]
    );
    assert!(!report.drained && report.unfinished.is_empty());
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_named_and_waited_for_no_longer() {
    let (tasks, health, journal) = (Tasks::new(&Registry::new()), Health::new(), Journal::new());
    for name in ["deaf", "deaf", "mute"] {
        tasks.spawn_cooperative(TaskKind::Critical, name, |_| pending::<()>());
    }
    tasks.begin_shutdown(ShutdownCause::Requested("test"));
    let flush = journal.clone();
    let report = Shutdown::new(config())
        .deregister("stuck", pending::<()>())
        .deregister("broken", async { Err("no connection") })
        .deregister("fine", async {})
        .flush("telemetry", move || flush.note("flushed"))
        .run_with(&tasks, &health, no_signals())
        .await;
    let running = |name, count| RunningTask {
        kind: TaskKind::Critical,
        name,
        count,
    };
    assert_eq!(report.unfinished, [running("deaf", 2), running("mute", 1)]);
    assert_eq!(report.failed_steps, ["stuck", "broken"]);
    assert_eq!(journal.entries(), [(10, "flushed")]);
    assert_eq!(report.exit_code(), 1);
    tasks.ended(TaskKind::Critical).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_order_at_once() {
    let (tasks, health) = (Tasks::new(&Registry::new()), Health::new());
    tasks.spawn(TaskKind::Request, "long", pending::<()>());
    let signals = futures::stream::iter([Signal::Terminate, Signal::Interrupt])
        .chain(futures::stream::pending());
    let begun = Instant::now();
    let report = Shutdown::new(config())
        .flush("telemetry", || panic!("not reached"))
        .run_with(&tasks, &health, signals)
        .await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(report.cause, ShutdownCause::Signal(Signal::Terminate));
    assert_eq!(report.forced, Some(Signal::Interrupt));
    assert_eq!(report.unfinished.len(), 1);
    assert_eq!(report.exit_code(), 130);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_critical_task_shuts_down_with_a_failure() {
    let (tasks, health) = (Tasks::new(&Registry::new()), Health::new());
    tasks.spawn(TaskKind::Critical, "engine", async { Err("out of memory") });
    let report = Shutdown::new(config())
        .run_with(&tasks, &health, no_signals())
        .await;
    assert_eq!(report.cause.to_string(), "task engine failed");
    assert!(report.drained && !health.is_ready());
    assert_eq!(report.exit_code(), 1);
}
