//! What the log says about tasks.
#![allow(clippy::unwrap_used)]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use forebay_observability::{
    BuildInfo, LogConfig, LogFormat, Registry, Telemetry, TelemetryConfig, request_span,
};
use forebay_runtime::{TaskEnd, TaskKind, Tasks};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The one line that contains `what`.
    #[track_caller]
    fn line(&self, what: &str) -> String {
        let text = self.text();
        let mut lines = text.lines().filter(|line| line.contains(what));
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no {what} in\n{text}"));
        assert_eq!(lines.next(), None, "{what} once");
        line.to_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logging() -> (Lines, tracing::dispatcher::DefaultGuard) {
    let lines = Lines::default();
    let config = TelemetryConfig {
        log: LogConfig {
            format: LogFormat::Json,
            ..LogConfig::default()
        },
        ..TelemetryConfig::default()
    };
    let build = BuildInfo {
        service: "test",
        version: "0",
        revision: "",
    };
    let writer = lines.clone();
    let (dispatch, _) = Telemetry::dispatch(&config, &build, move || writer.clone()).unwrap();
    (lines, tracing::dispatcher::set_default(&dispatch))
}

#[derive(Debug, thiserror::Error)]
#[error("the stream broke")]
struct Broken(#[source] io::Error);

#[tokio::test]
async fn failures_and_panics_are_logged_with_the_tasks_name_and_all_causes() {
    let (lines, _guard) = logging();
    let tasks = Tasks::new(&Registry::new());
    let mut failed = tasks.spawn(TaskKind::Background, "refresh", async {
        Err(Broken(io::Error::other("no route to host")))
    });
    assert_eq!(failed.ended().await, TaskEnd::Failed);
    let line = lines.line("task failed");
    for part in [
        r#""level":"WARN""#,
        r#""task":"refresh""#,
        "the stream broke: no route to host",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }

    let mut panicked = tasks.spawn(TaskKind::Background, "report", async {
        panic!("number {}", 7)
    });
    assert_eq!(panicked.ended().await, TaskEnd::Panicked);
    let line = lines.line("task panicked");
    assert!(
        line.contains(r#""task":"report""#) && line.contains("number 7"),
        "{line}"
    );
}

#[tokio::test]
async fn a_requests_tasks_log_under_its_id_and_others_do_not() {
    let (lines, _guard) = logging();
    let tasks = Tasks::new(&Registry::new());
    let span = request_span("req-7");
    let (mut stream, mut upkeep) = span.in_scope(|| {
        let stream = tasks.spawn(TaskKind::Request, "stream", async {
            tracing::info!("from the stream");
        });
        let upkeep = tasks.spawn(TaskKind::Background, "upkeep", async {
            tracing::info!("from the upkeep");
        });
        (stream, upkeep)
    });
    stream.ended().await;
    upkeep.ended().await;
    assert!(lines.line("from the stream").contains("req-7"));
    assert!(!lines.line("from the upkeep").contains("req-7"));
}
