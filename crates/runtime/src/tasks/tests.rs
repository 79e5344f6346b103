use std::future::pending;
use std::sync::mpsc;

use forebay_observability::Registry;
use tokio::task::yield_now;

use super::*;
use crate::cause::CancelCause;

const KINDS: [TaskKind; 3] = TaskKind::ALL;

fn tasks() -> (Tasks, Registry) {
    let registry = Registry::new();
    (Tasks::new(&registry), registry)
}

#[track_caller]
fn assert_metric(registry: &Registry, line: &str) {
    let text = registry.encode();
    assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
}

#[tokio::test]
async fn tasks_are_counted_while_they_run_and_by_their_end() {
    let (tasks, registry) = tasks();
    let (go, gone) = oneshot::channel::<()>();
    let mut handle = tasks.spawn(TaskKind::Request, "stream", async {
        gone.await.map_err(|_| "never told to go")
    });
    assert_eq!(
        tasks.running(),
        [RunningTask {
            kind: TaskKind::Request,
            name: "stream",
            count: 1
        }]
    );
    assert_metric(
        &registry,
        r#"forebay_tasks_running{kind="request",task="stream"} 1"#,
    );
    drop(go);
    assert_eq!(handle.ended().await, TaskEnd::Failed);
    assert_eq!(handle.ended().await, TaskEnd::Failed, "as often as asked");
    assert!(tasks.running().is_empty());
    assert_metric(
        &registry,
        r#"forebay_tasks_running{kind="request",task="stream"} 0"#,
    );
    assert_metric(
        &registry,
        r#"forebay_tasks_ended_total{kind="request",task="stream",end="failed"} 1"#,
    );
}

#[tokio::test]
async fn a_panic_stays_in_its_task() {
    let (tasks, registry) = tasks();
    for kind in [TaskKind::Request, TaskKind::Background] {
        let mut task = tasks.spawn(kind, "bad", async { panic!("on purpose") });
        assert_eq!(task.ended().await, TaskEnd::Panicked);
        let mut thread = tasks
            .spawn_thread(kind, "bad", |_| panic!("on purpose"))
            .unwrap();
        assert_eq!(thread.ended().await, TaskEnd::Panicked);
    }
    assert!(!tasks.is_shutting_down());
    assert_metric(
        &registry,
        r#"forebay_tasks_ended_total{kind="background",task="bad",end="panicked"} 2"#,
    );
}

#[tokio::test]
async fn whatever_ends_a_critical_task_begins_a_shutdown() {
    async fn cause(spawn: impl FnOnce(&Tasks) -> TaskHandle) -> ShutdownCause {
        let (tasks, _) = tasks();
        let _handle = spawn(&tasks);
        tasks.shutdown_begun().await
    }
    let ended = |end| ShutdownCause::TaskEnded {
        name: "listener",
        end,
    };
    let kind = TaskKind::Critical;
    assert_eq!(
        cause(|tasks| tasks.spawn(kind, "listener", async {})).await,
        ended(TaskEnd::Finished)
    );
    assert_eq!(
        cause(|tasks| tasks.spawn(kind, "listener", async { Err("no socket") })).await,
        ended(TaskEnd::Failed)
    );
    assert_eq!(
        cause(|tasks| tasks.spawn(kind, "listener", async { panic!("on purpose") })).await,
        ended(TaskEnd::Panicked)
    );
    assert_eq!(
        cause(|tasks| tasks.spawn_thread(kind, "listener", |_| ()).unwrap()).await,
        ended(TaskEnd::Finished)
    );
}

#[test]
fn requests_go_on_for_as_long_as_anything_of_them_is_left() {
    let (tasks, _) = tasks();
    assert!(!tasks.has_requests());
    let request = tasks.requests().child();
    let part = request.child();
    drop(request);
    assert!(tasks.has_requests());
    drop(part);
    assert!(!tasks.has_requests());
}

#[tokio::test]
async fn a_cancelled_task_is_no_failure() {
    let (tasks, _) = tasks();
    for kind in KINDS {
        let mut dropped = tasks.spawn(kind, "dropped", pending::<()>());
        dropped.cancel();
        assert_eq!(dropped.ended().await, TaskEnd::Cancelled);

        let mut told = tasks.spawn_cooperative(kind, "told", |cancel| async move {
            cancel.cancelled().await;
        });
        told.cancel();
        assert_eq!(told.ended().await, TaskEnd::Finished);
    }
    assert!(!tasks.is_shutting_down());
}

#[tokio::test]
async fn a_kind_is_cancelled_alone_and_for_good() {
    for cancelled in KINDS {
        let (tasks, _) = tasks();
        let mut handles = KINDS.map(|kind| tasks.spawn(kind, "waits", pending::<()>()));
        tasks.cancel(cancelled);
        assert_eq!(
            handles[cancelled as usize].ended().await,
            TaskEnd::Cancelled
        );
        tasks.ended(cancelled).await;
        assert_eq!(tasks.running().len(), 2);
        let mut late = tasks.spawn(cancelled, "late", pending::<()>());
        assert_eq!(late.ended().await, TaskEnd::Cancelled);
    }
}

#[tokio::test]
async fn an_aborted_cooperative_task_is_dropped() {
    let (tasks, _) = tasks();
    let mut deaf = tasks.spawn_cooperative(TaskKind::Request, "deaf", |_| pending::<()>());
    tasks.cancel(TaskKind::Request);
    yield_now().await;
    assert_eq!(tasks.running().len(), 1);
    tasks.abort();
    assert_eq!(deaf.ended().await, TaskEnd::Cancelled);
}

#[tokio::test]
async fn blocking_work_is_bounded_and_its_wait_is_counted() {
    let registry = Registry::new();
    let tasks = Tasks::with_blocking_limit(&registry, NonZeroUsize::MIN);
    assert_metric(&registry, "forebay_tasks_blocking_limit 1");
    let (go, gone) = mpsc::channel::<()>();
    let mut first = std::pin::pin!(tasks.run_blocking("hash", move || gone.recv().is_ok()));
    let mut second = std::pin::pin!(tasks.run_blocking("hash", || 2));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    assert_metric(&registry, "forebay_tasks_blocking_waiting 1");
    assert_eq!(tasks.running()[0].count, 1);

    go.send(()).unwrap();
    assert_eq!(first.await, Ok(true));
    assert_eq!(second.await, Ok(2));
    assert_metric(&registry, "forebay_tasks_blocking_waiting 0");
    assert!(tasks.running().is_empty());
}

#[tokio::test]
async fn blocking_work_that_panics_gives_its_thread_back() {
    let tasks = Tasks::with_blocking_limit(&Registry::new(), NonZeroUsize::MIN);
    let bad = tasks.run_blocking("bad", || panic!("on purpose")).await;
    assert_eq!(bad, Err::<(), _>(BlockingError::Panicked));
    assert_eq!(tasks.run_blocking("good", || 1).await, Ok(1));
    tasks.cancel(TaskKind::Request);
    let late = tasks.run_blocking("late", || 1).await;
    assert_eq!(late, Err(BlockingError::Cancelled));
}

#[tokio::test]
async fn the_first_cause_of_a_shutdown_stays() {
    let (tasks, _) = tasks();
    assert!(tasks.begin_shutdown(ShutdownCause::Requested("test")));
    assert!(!tasks.begin_shutdown(ShutdownCause::Requested("again")));
    assert_eq!(
        tasks.shutdown_begun().await,
        ShutdownCause::Requested("test")
    );
    assert!(
        !tasks.requests().is_killed(),
        "requests drain before they are killed"
    );
    tasks.requests().kill(CancelCause::Shutdown);
}
