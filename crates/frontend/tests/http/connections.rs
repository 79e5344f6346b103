//! Connections: how long they last, how many there are, and what is said when they end.

use std::time::Duration;

use forebay_frontend::FrontendConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::client::{Response, get, parse, post, read_until};
use crate::engine::ScriptedEngine;
use crate::server::{Server, until};

const LIVE: &str = "GET /live HTTP/1.1\r\nhost: test\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Sends these bytes and reads until the server closes.
async fn exchange(server: &Server, bytes: &[u8]) -> Response {
    let mut stream = connect(server).await;
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> Response {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes)
}

fn ended(server: &Server, end: &str, count: usize) -> bool {
    server.has_metric(&format!(
        "forebay_frontend_connections_ended_total{{end=\"{end}\"}} {count}"
    ))
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_to_its_end_is_given_up() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let response = exchange(&server, b"POST /v1/chat").await;
    response.assert_error(408, "header_timeout", None);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(response.header("x-request-id").is_some());

    // A byte now and then does not help.
    let begun = Instant::now();
    let (mut read, mut write) = connect(&server).await.into_split();
    let drip = async {
        for byte in LIVE.bytes().cycle().filter(|&byte| byte != b'\n') {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut bytes = Vec::new();
    tokio::select! {
        () = drip => panic!("the answer comes before a reset"),
        read = read.read_to_end(&mut bytes) => drop(read.unwrap()),
    }
    drop((read, write));
    parse(&bytes).assert_error(408, "header_timeout", None);
    assert!(begun.elapsed() < Duration::from_secs(35), "of virtual time");
    until(|| ended(&server, "header_timeout", 2)).await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_end_without_a_word() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let mut fresh = connect(&server).await;
    let mut used = connect(&server).await;
    used.write_all(LIVE.as_bytes()).await.unwrap();
    read_until(&mut used, "}").await;
    let begun = Instant::now();
    assert_eq!(fresh.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(used.read(&mut [0]).await.unwrap(), 0);
    let idle = begun.elapsed().as_secs();
    assert!((115..125).contains(&idle), "{idle} s of virtual time");
    until(|| ended(&server, "idle", 2)).await;
}

#[tokio::test]
async fn heads_have_limits() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let long = format!(
        "GET /live HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    let many = format!(
        "GET /live HTTP/1.1\r\nhost: t\r\n{}\r\n",
        "a: b\r\n".repeat(200)
    );
    let uri = format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "y".repeat(100_000));
    for head in [long, many, uri] {
        let response = exchange(&server, head.as_bytes()).await;
        response.assert_error(431, "head_too_large", None);
    }
    let good = format!(
        "GET /live HTTP/1.1\r\nhost: t\r\nconnection: close\r\nx: {}\r\n\r\n",
        "y".repeat(30_000)
    );
    assert_eq!(exchange(&server, good.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let cases: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting",
        b"nonsense\r\n\r\n",
        b"GET /live HTTP/3.0\r\n\r\n",
        b"GET /li ve HTTP/1.1\r\n\r\n",
        b"GET /live HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /live HTTP/1.1\r\nna\xffme: x\r\n\r\n",
        b"POST /live HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /live HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /live HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
    ];
    for bytes in cases {
        let response = exchange(&server, bytes).await;
        response.assert_error(400, "malformed_request", None);
    }
    let http_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    exchange(&server, http_2)
        .await
        .assert_error(400, "malformed_request", None);
    until(|| ended(&server, "malformed", 10)).await;
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room() {
    let config = FrontendConfig {
        max_connections: 2,
        ..FrontendConfig::default()
    };
    let server = Server::with_config(ScriptedEngine::saying("ok"), config).await;
    let mut first = connect(&server).await;
    until(|| server.connections() == 1).await;
    let mut second = connect(&server).await;
    until(|| server.connections() == 2).await;
    assert_eq!(get(server.address, "/live").await.status, 200);
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0, "closed");
    assert!(ended(&server, "made_room", 1));
    // The other is still good.
    second.write_all(LIVE.as_bytes()).await.unwrap();
    read_until(&mut second, "200 OK").await;
    assert!(server.has_metric("forebay_frontend_connections_limit 2"));
}

#[tokio::test]
async fn requests_may_come_before_their_turn() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let mut stream = connect(&server).await;
    // Two and a half.
    let (half, other_half) = LIVE.split_at(LIVE.len() / 2);
    let bytes = [LIVE, LIVE, half].concat();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answers = String::new();
    while answers.matches("200 OK").count() < 2 || !answers.ends_with('}') {
        answers += &read_until(&mut stream, "").await;
    }
    stream.write_all(other_half.as_bytes()).await.unwrap();
    read_until(&mut stream, "200 OK").await;

    // Bodies in between.
    let body = json!({"model": "base", "prompt": "x"}).to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let close = LIVE.replace("host", "connection: close\r\nhost");
    let bytes = [&*request, &*request, &*close].concat();
    let mut stream = connect(&server).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("200 OK").count(), 3, "{answers}");
    assert_eq!(answers.matches("\"text\":\"ok\"").count(), 2, "{answers}");
}

#[tokio::test]
async fn a_refusal_does_not_end_the_connection() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let mut stream = connect(&server).await;
    let bad = "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
               content-length: 2\r\n\r\n{}";
    for _ in 0..3 {
        stream.write_all(bad.as_bytes()).await.unwrap();
        read_until(&mut stream, "missing_parameter").await;
    }
    stream.write_all(LIVE.as_bytes()).await.unwrap();
    read_until(&mut stream, "200 OK").await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn every_version_and_form_of_http_1_is_served() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let old = exchange(&server, b"GET /live HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200);
    let absolute = "GET http://elsewhere.example/live HTTP/1.1\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(&server, absolute.as_bytes()).await.status, 200);
    let head = "HEAD /live HTTP/1.1\r\nconnection: close\r\n\r\n";
    let head = exchange(&server, head.as_bytes()).await;
    assert_eq!((head.status, &*head.body), (200, ""));
    for method in ["OPTIONS", "BREW", "CONNECT"] {
        let request = format!("{method} /live HTTP/1.1\r\nconnection: close\r\n\r\n");
        let response = exchange(&server, request.as_bytes()).await;
        response.assert_error(405, "method_not_allowed", None);
    }
    // A stream in HTTP/1.0 has no chunks: it ends with the connection.
    let body = json!({"model": "base", "prompt": "x", "stream": true}).to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let stream = exchange(&server, request.as_bytes()).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.events().last(), Some(&"[DONE]"));
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_not_taken_for_a_request() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\n\r\n";
    let request = format!(
        "GET /live HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let response = exchange(&server, request.as_bytes()).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(
        !response.body.contains("HTTP/1.1"),
        "one answer: {}",
        response.body
    );
}

#[tokio::test]
async fn two_lengths_are_one_body_and_the_last_request() {
    // RFC 9112, 6.1: chunked wins, and the connection ends.
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let body = json!({"model": "base", "prompt": "x"}).to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\n\r\n",
        body.len()
    );
    let response = exchange(&server, request.as_bytes()).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(response.json()["choices"][0]["text"], "ok");
}

#[tokio::test]
async fn who_asks_before_sending_is_answered_first() {
    let config = FrontendConfig {
        body_limit_bytes: 1000,
        ..FrontendConfig::default()
    };
    let server = Server::with_config(ScriptedEngine::saying("ok"), config).await;
    let head = |length| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let body = json!({"model": "base", "prompt": "x"}).to_string();
    let mut stream = connect(&server).await;
    stream.write_all(head(body.len()).as_bytes()).await.unwrap();
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(rest(&mut stream).await.status, 200);

    let refused = exchange(&server, head(1001).as_bytes()).await;
    refused.assert_error(413, "body_too_large", None);
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_long_body_sees_why_it_is_refused() {
    let config = FrontendConfig {
        body_limit_bytes: 1000,
        ..FrontendConfig::default()
    };
    let server = Server::with_config(ScriptedEngine::saying("ok"), config).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    // More than the sockets between the two can hold.
    let length = 30 << 20;
    let piece = vec![b' '; 1 << 20];
    for chunked in [false, true] {
        let mut stream = connect(&server).await;
        let how = match chunked {
            true => format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n"),
            false => format!("content-length: {length}\r\n\r\n"),
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(how.as_bytes()).await.unwrap();
        // It reads nothing before it has sent everything.
        for _ in 0..length / piece.len() {
            stream.write_all(&piece).await.unwrap();
        }
        rest(&mut stream)
            .await
            .assert_error(413, "body_too_large", None);
    }
}

#[tokio::test]
async fn long_bodies_share_a_budget() {
    let config = FrontendConfig {
        body_budget_bytes: 50_000,
        ..FrontendConfig::default()
    };
    let server = Server::with_config(ScriptedEngine::saying("ok"), config).await;
    let mut slow = connect(&server).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
                content-length: 60000\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&[b' '; 40_000]).await.unwrap();
    until(|| server.has_metric("forebay_frontend_body_bytes 40000")).await;

    let long = json!({"model": "base", "prompt": "x", "user": "u".repeat(20_000)});
    let refused = post(server.address, "/v1/completions", &long).await;
    refused.assert_error(503, "body_budget_exhausted", None);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let short = json!({"model": "base", "prompt": "x"});
    let answered = post(server.address, "/v1/completions", &short).await;
    assert_eq!(answered.status, 200, "{}", answered.body);

    drop(slow);
    until(|| server.has_metric("forebay_frontend_body_bytes 0")).await;
    assert!(server.has_metric("forebay_frontend_body_budget_bytes 50000"));
    let answered = post(server.address, "/v1/completions", &long).await;
    assert_ne!(answered.status, 503, "{}", answered.body);
}
