use std::error::Error;
use std::time::Duration;

use forebay_runtime::{NatsConfig, PlaneError, Secret};
use forebay_testkit::NatsServer;
use futures::FutureExt as _;

use crate::{Process, config, connect, in_time};

/// The error of a connection that must fail, with its sources.
pub(crate) async fn failure(config: &NatsConfig) -> String {
    let error = connect(config).await.expect_err("nobody was to be let in");
    assert!(matches!(error, PlaneError::Unreachable(_)));
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let mut server = NatsServer::start();
    server.kill();
    let config = NatsConfig {
        connect_timeout: Duration::ZERO,
        ..config(&server)
    };
    let error = failure(&config).await;
    assert!(error.contains(&server.url()), "{error}");
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for() {
    let mut server = NatsServer::start();
    server.kill();
    let config = config(&server);
    let connect = connect(&config);
    tokio::pin!(connect);
    assert!((&mut connect).now_or_never().is_none());
    server.restart();
    let connection = connect.await.unwrap();
    assert!(*connection.connected().borrow());
}

#[tokio::test]
async fn who_has_no_password_is_refused_at_once() {
    let server = NatsServer::with_options(&["--user", "someone", "--pass", "secret"]);
    let wrong = NatsConfig {
        user: Some("someone".into()),
        password: Some(Secret::new("guess")),
        ..config(&server)
    };
    for config in [config(&server), wrong.clone()] {
        let error = failure(&config).await;
        assert!(error.contains("authorization violation"), "{error}");
        assert!(!error.contains("guess"), "{error}");
    }
    let right = NatsConfig {
        password: Some(Secret::new("secret")),
        ..wrong
    };
    connect(&right).await.unwrap();
}

#[tokio::test]
async fn it_is_known_whether_the_server_is_there() {
    let mut server = NatsServer::start();
    let process = Process::start(&server).await;
    assert_eq!(process.metric("forebay_nats_connected"), 1.0);
    server.kill();
    process.connected(false).await;
    assert_eq!(process.metric("forebay_nats_connected"), 0.0);
    assert_eq!(process.health.report().degraded[0].name, "nats");
    assert!(process.health.is_ready(), "the process can go on");
    server.restart();
    process.connected(true).await;
    assert_eq!(process.metric("forebay_nats_reconnects_total"), 1.0);
    assert_eq!(process.health.report().degraded, []);
}

#[tokio::test]
async fn a_server_that_is_silent_is_away() {
    let server = NatsServer::start();
    let process = Process::start(&server).await;
    server.pause();
    process.connected(false).await;
    server.resume();
    process.connected(true).await;
}

#[tokio::test]
async fn a_process_that_leaves_misses_nobody() {
    let server = NatsServer::start();
    let process = Process::start(&server).await;
    let mut connected = process.connection.connected();
    connected.mark_unchanged();
    drop(process.connection);
    // Nothing is told but that nothing more will be.
    assert!(in_time(connected.changed()).await.is_err());
    assert!(*connected.borrow());
    assert!(process.health.report().degraded.is_empty());
}
