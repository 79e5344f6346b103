//! Each way in which a request fails is told apart, and disturbs no other.

use std::time::Duration;

use forebay_bench::{Arrival, FailureClass};
use serde_json::json;

use crate::server::{Answer, Asked, Server, Step, done, finish, role, token, usage};
use crate::{config, run};

/// The one thing that goes wrong, and its class and detail.
type Fault = (fn(&Asked) -> Answer, FailureClass, &'static str);

fn faults() -> Vec<Fault> {
    vec![
        (
            |_| {
                Answer::status(
                    503,
                    json!({"error": {"message": "m", "code": "no_worker_ready"}}),
                )
            },
            FailureClass::Http,
            "503 no_worker_ready",
        ),
        (
            |_| {
                let error = json!({"error": {"message": "m", "type": "unavailable", "code": 503}});
                let event = Step::Send(format!("data: {error}\n\n"));
                Answer::stream(vec![role(), token(), event, done()])
            },
            FailureClass::StreamError,
            "unavailable",
        ),
        (
            |_| {
                // While it waits, what was sent before goes out.
                let wait = Step::Wait(Duration::from_millis(1));
                Answer::stream(vec![role(), token(), wait, Step::Cut])
            },
            FailureClass::Truncated,
            "the connection ended within the answer",
        ),
        (
            |asked| Answer::stream(vec![role(), token(), finish(), usage(asked, 1)]),
            FailureClass::Truncated,
            "the stream ended without [DONE]",
        ),
        (
            |asked| Answer::stream(vec![role(), token(), finish(), usage(asked, 3), done()]),
            FailureClass::TokenCount,
            "fewer tokens than asked for",
        ),
        (
            |_| Answer::status(200, json!({"choices": []})),
            FailureClass::Malformed,
            "the answer is not streamed",
        ),
        (
            |_| Answer::stream(vec![role(), Step::Stall]),
            FailureClass::Timeout,
            "no answer in time",
        ),
    ]
}

#[tokio::test]
async fn failures_are_counted_by_cause() {
    for (fault, class, detail) in faults() {
        // Every third request, after the two probes.
        let server = Server::start(move |asked| {
            if asked.number >= 2 && asked.number % 3 == 0 {
                fault(asked)
            } else {
                Answer::at_once(asked)
            }
        })
        .await;
        let mut config = config(&server);
        config.arrival = Arrival::Closed { concurrency: 1 };
        if class == FailureClass::Timeout {
            config.timeout = Duration::from_millis(300);
        }
        let measured = run(&config, &server).await.unwrap();
        let report = &measured.report;
        assert_eq!(
            (report.requests.completed, report.requests.failed),
            (8, 4),
            "{report}"
        );
        assert_eq!(report.failures.len(), 1, "{report}");
        let failure = &report.failures[0];
        assert_eq!(
            (failure.class, &*failure.detail, failure.count),
            (class, detail, 4)
        );
        assert_eq!(report.tokens.output, 8 * 4, "what failed is in no sum");
        assert_eq!(report.latency_ms.ttft.unwrap().count, 8);
        let kept = matches!(class, FailureClass::Http | FailureClass::TokenCount);
        assert_eq!(
            server.connections() == 1,
            kept,
            "a complete answer leaves its connection"
        );
        let table = report.to_string();
        assert!(
            table.contains(class.as_str()) && table.contains(detail),
            "{table}"
        );
    }
}

#[tokio::test]
async fn a_server_that_goes_away_is_a_failure_to_connect() {
    let server = Server::start(Answer::at_once).await;
    let mut config = config(&server);
    config.duration = Some(Duration::from_millis(200));
    config.requests = None;
    config.arrival = Arrival::Closed { concurrency: 2 };
    let tasks = server.tasks.clone();
    let running = forebay_bench::run(
        &config,
        &tasks,
        tokio_util::sync::CancellationToken::new(),
        std::sync::Arc::new(()),
    );
    let leaving = async {
        server.arrived(10).await;
        server.stop();
    };
    let (measured, ()) = tokio::join!(running, leaving);
    let report = measured.unwrap().report;
    assert!(report.requests.completed >= 4, "{report}");
    let connect = report
        .failures
        .iter()
        .find(|f| f.class == FailureClass::Connect)
        .unwrap();
    // Each of the two waits after a refused connection.
    assert!((1..=30).contains(&connect.count), "{report}");
}
