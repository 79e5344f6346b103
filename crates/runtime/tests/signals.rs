//! Real signals; alone in its file, because handlers are the process's.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use forebay_observability::Registry;
use forebay_runtime::{Health, Shutdown, ShutdownCause, ShutdownConfig, Signal, Tasks};

fn send_to_self(signal: &str) {
    let kill = format!("kill -{signal} {}", std::process::id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn sigterm_begins_a_shutdown_and_sigint_forces_its_end() {
    let (tasks, health) = (Tasks::new(&Registry::new()), Health::new());
    let (asked, forced) = (tasks.clone(), health.clone());
    let shutdown = Shutdown::new(ShutdownConfig::default()).deregister("slow", async move {
        assert!(!forced.is_ready());
        assert_eq!(
            asked.shutdown_begun().await,
            ShutdownCause::Signal(Signal::Terminate)
        );
        send_to_self("INT");
        std::future::pending::<()>().await;
    });
    let run = async {
        let run = shutdown.run(&tasks, &health);
        let mut run = std::pin::pin!(run);
        // The first poll installs the handlers; only then is it safe to send.
        assert!(futures::poll!(&mut run).is_pending());
        send_to_self("TERM");
        run.await.unwrap()
    };
    let report = run.await;
    assert_eq!(report.cause, ShutdownCause::Signal(Signal::Terminate));
    assert_eq!(report.forced, Some(Signal::Interrupt));
    assert_eq!(report.exit_code(), 130);
}
