//! What a process that ends still hears.

use forebay_runtime::{Shutdown, ShutdownCause, ShutdownConfig, TaskKind};
use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn a_process_that_drains_hears_of_who_comes() {
    let etcd = Etcd::start();
    let (owner, leaving) = (Process::start(&etcd).await, Process::start(&etcd).await);
    let mut watch = leaving.watch().await;
    next(&mut watch).await;
    let (request, is_over) = oneshot::channel::<()>();
    leaving.tasks.spawn(TaskKind::Request, "answer", async {
        let _ = is_over.await;
    });
    let (begun, is_begun) = oneshot::channel();
    let config = ShutdownConfig {
        grace_seconds: DEADLINE.as_secs_f64(),
        phase_seconds: DEADLINE.as_secs_f64(),
    };
    let shutdown = Shutdown::new(config).deregister("begun", async {
        let _ = begun.send(());
    });
    let cause = ShutdownCause::Requested("test");
    leaving.tasks.begin_shutdown(cause);
    let drain = shutdown.run_with(&leaving.tasks, &leaving.health, futures::stream::pending());
    let comes = async {
        is_begun.await.unwrap();
        let _registration = owner.discovery.register(instance(1)).await.unwrap();
        assert_eq!(next(&mut watch).await, put(1));
        drop(request);
    };
    let (report, ()) = tokio::join!(drain, comes);
    assert_eq!((report.cause, report.exit_code()), (cause, 0));
}

#[tokio::test]
async fn a_watch_that_nobody_needs_ends_alone() {
    let etcd = Etcd::start();
    let process = Process::start(&etcd).await;
    let watches = || {
        let running = process.tasks.running();
        running.iter().any(|task| task.name == "etcd watch")
    };
    let watch = process.watch().await;
    assert!(watches());
    drop(watch);
    until(|| !watches()).await;
    assert!(!process.tasks.is_shutting_down());
}
