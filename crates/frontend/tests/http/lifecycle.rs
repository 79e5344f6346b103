use std::sync::Arc;

use forebay_frontend::FrontendConfig;
use forebay_runtime::{Shutdown, ShutdownCause, ShutdownConfig};
use futures::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::client::{get, open_post, parse, post, read_until};
use crate::engine::{ScriptedEngine, Turn, opening, output, say};
use crate::server::{Server, until};

const CHAT: &str = "/v1/chat/completions";

fn chat(stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": "test", "messages": messages, "stream": stream, "n": 2})
}

/// Says `A`, and nothing more until the gate opens.
fn stalling(gate: Arc<Semaphore>) -> Arc<ScriptedEngine> {
    ScriptedEngine::new(move |request| {
        let mut turns = say(request, "AB");
        turns.insert(2, Turn::Wait(gate.clone()));
        Ok(turns)
    })
}

fn disconnects(server: &Server, count: u32) -> bool {
    server.has_metric(&format!(
        "forebay_frontend_client_disconnects_total{{endpoint=\"chat_completions\"}} {count}"
    ))
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_in_the_engine() {
    let engine = stalling(Arc::new(Semaphore::new(0)));
    let server = Server::start(engine.clone()).await;

    // In the middle of a stream.
    let mut stream = open_post(server.address, CHAT, &chat(true)).await;
    read_until(&mut stream, "\"content\":\"A\"").await;
    assert_eq!(engine.live(), 2);
    drop(stream);
    engine.until_live(0).await;
    until(|| disconnects(&server, 1)).await;

    // While it waits for a whole answer.
    let stream = open_post(server.address, CHAT, &chat(false)).await;
    engine.until_live(2).await;
    drop(stream);
    engine.until_live(0).await;
    until(|| disconnects(&server, 2)).await;

    until(|| server.connections() == 0).await;
    assert!(server.has_metric("forebay_frontend_connections 0"));
    let in_flight = "forebay_frontend_requests_in_flight{endpoint=\"chat_completions\"} 0";
    assert!(server.has_metric(in_flight));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_ends_it_too() {
    let gate = Arc::new(Semaphore::new(0));
    let engine = ScriptedEngine::new(move |request| {
        Ok(vec![
            Turn::Wait(gate.clone()),
            Turn::Output(opening(request, 0)),
            Turn::Output(output(request, &[65])),
        ])
    });
    let server = Server::start(engine.clone()).await;
    let stream = open_post(server.address, CHAT, &chat(true)).await;
    engine.until_live(2).await;
    drop(stream);
    engine.until_live(0).await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for id in ["first", "second"] {
        let body = chat(true).to_string();
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
             x-request-id: {id}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "data: [DONE]\n\n\r\n0\r\n\r\n").await;
        assert!(
            answer.contains(&format!("x-request-id: {id}\r\n")),
            "{answer}"
        );
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn connections_have_a_limit() {
    let config = FrontendConfig {
        max_connections: 1,
        ..FrontendConfig::default()
    };
    let gate = Arc::new(Semaphore::new(0));
    let engine = stalling(gate.clone());
    let server = Server::with_config(engine.clone(), config).await;
    let mut first = open_post(server.address, CHAT, &chat(false)).await;
    engine.until_live(2).await;
    // The second waits.
    let mut second = open_post(server.address, CHAT, &chat(false)).await;
    assert_eq!(engine.requests().len(), 2);
    assert_eq!(server.connections(), 1);
    gate.add_permits(4);
    let mut bytes = Vec::new();
    first.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(parse(&bytes).status, 200);
    bytes.clear();
    second.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(parse(&bytes).status, 200);
    assert_eq!(engine.requests().len(), 4);
}

/// Begins a shutdown and carries it out while `meanwhile` runs.
async fn shut_down(server: &Server, grace_seconds: f64, meanwhile: impl Future<Output = ()>) {
    let config = ShutdownConfig {
        grace_seconds,
        ..ShutdownConfig::default()
    };
    let (tasks, health) = (&server.process.tasks, &server.process.health);
    tasks.begin_shutdown(ShutdownCause::Requested("test"));
    let shutdown = Shutdown::new(config).run_with(tasks, health, stream::pending());
    let (report, ()) = tokio::join!(shutdown, meanwhile);
    assert_eq!(report.unfinished, []);
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test]
async fn a_shutdown_lets_requests_finish_and_takes_no_more() {
    let gate = Arc::new(Semaphore::new(0));
    let engine = stalling(gate.clone());
    let server = Server::start(engine.clone()).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    until(|| server.connections() == 1).await;
    let mut stream = open_post(server.address, CHAT, &chat(true)).await;
    read_until(&mut stream, "\"content\":\"A\"").await;
    shut_down(&server, 3600.0, async {
        // An idle connection is closed at once, and the socket with it.
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert!(TcpStream::connect(server.address).await.is_err());
        assert!(!server.process.health.is_ready());
        gate.add_permits(2);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("data: [DONE]\n\n"), "{rest}");
    })
    .await;
}

#[tokio::test]
async fn at_the_end_of_the_grace_period_clients_are_told() {
    let engine = stalling(Arc::new(Semaphore::new(0)));
    let server = Server::start(engine.clone()).await;
    let mut streamed = open_post(server.address, CHAT, &chat(true)).await;
    read_until(&mut streamed, "\"content\":\"A\"").await;
    let mut whole = open_post(server.address, CHAT, &chat(false)).await;
    engine.until_live(4).await;
    shut_down(&server, 0.0, async {
        let mut rest = String::new();
        streamed.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("\"code\":\"shutting_down\"}}\n\n"), "{rest}");
        assert!(!rest.contains("[DONE]"));
        let mut bytes = Vec::new();
        whole.read_to_end(&mut bytes).await.unwrap();
        parse(&bytes).assert_error(503, "shutting_down", None);
    })
    .await;
    engine.until_live(0).await;
}

#[tokio::test]
async fn it_ends_when_it_is_cancelled() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    assert_eq!(post(server.address, CHAT, &chat(false)).await.status, 200);
    let same_port = FrontendConfig {
        port: server.address.port(),
        ..FrontendConfig::default()
    };
    let taken = forebay_frontend::Frontend::bind(
        &same_port,
        forebay_frontend::ModelRegistry::default(),
        server.process.clone(),
    );
    let error = taken.await.unwrap_err();
    assert!(error.to_string().contains("cannot listen on 127.0.0.1:"));
    assert_eq!(get(server.address, "/live").await.status, 200);
}
