//! What has to hold before anything is measured.

use std::sync::Arc;

use forebay_bench::{Arrival, BenchConfig, Error};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Server, done, finish, role, token};
use crate::{config, run};

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let server = Server::start(Answer::at_once).await;
    // A port that was just free.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = BenchConfig::new(format!("http://{address}").parse().unwrap());
    let error = run(&config, &server).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }));
    assert_eq!(error.to_string(), format!("cannot connect to {address}"));
}

#[tokio::test]
async fn a_server_without_the_api_is_told_apart() {
    let server = Server::start(Answer::at_once).await;
    let url = server.url().replace("/v1", "/elsewhere");
    let config = BenchConfig::new(url.parse().unwrap());
    let error = run(&config, &server).await.unwrap_err().to_string();
    assert!(
        error.contains("/elsewhere/v1/models: status 404"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_refuses_everything_ends_the_run() {
    let refuse = |_: &_| Answer::status(401, json!({"error": {"code": "unauthenticated"}}));
    let server = Server::start(refuse).await;
    let error = run(&config(&server), &server)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the first request: 401 unauthenticated (http)");
}

/// Servers that do not know `ignore_eos` are asked without it, and may answer with any length.
#[tokio::test]
async fn lengths_are_free_where_they_cannot_be_fixed() {
    let server = Server::start(|asked| {
        if asked.body.get("ignore_eos").is_some() {
            return Answer::status(
                400,
                json!({"error": {"message": "unknown field ignore_eos"}}),
            );
        }
        // It does not count tokens either.
        Answer::stream(vec![role(), token(), token(), finish(), done()])
    })
    .await;
    let report = run(&config(&server), &server).await.unwrap().report;
    assert!(!report.run.exact_length);
    assert!(report.to_string().contains("where the model ends"));
    assert_eq!((report.requests.completed, report.requests.failed), (12, 0));
    assert!(!report.tokens.counted_by_server);
    assert_eq!(
        (report.tokens.output, report.run.tokens_per_word),
        (24, None)
    );
    let words = server.asked().last().unwrap().words();
    assert_eq!(words, 20, "one token a word is assumed");
}

#[tokio::test]
async fn what_does_not_go_together_is_said_before_anything_is_sent() {
    let server = Server::start(Answer::at_once).await;
    let mut config = config(&server);
    config.server_pids = vec![u32::MAX];
    assert!(matches!(
        run(&config, &server).await,
        Err(Error::ServerCpu { pid: u32::MAX, .. })
    ));
    config.arrival = Arrival::Closed { concurrency: 0 };
    assert!(matches!(run(&config, &server).await, Err(Error::Config(_))));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_interrupt_before_the_measurement_leaves_nothing_to_report() {
    let server = Server::start(Answer::at_once).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let result = forebay_bench::run(&config(&server), &server.tasks, cancel, Arc::new(())).await;
    assert!(matches!(result, Err(Error::Interrupted)));
}
