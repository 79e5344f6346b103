use forebay_engine::Error;
use forebay_frontend::FrontendConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{get, parse, post, send};
use crate::engine::ScriptedEngine;
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn what_is_not_there() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"model": "other", "messages": messages});
    let response = post(server.address, CHAT, &body).await;
    response.assert_error(404, "model_not_found", Some("model"));
    assert!(!response.body.contains("base"), "the others are not told");
    let response = get(server.address, "/v1/models/no/such").await;
    response.assert_error(404, "model_not_found", Some("model"));
    let response = get(server.address, "/v1/models/%ff").await;
    response.assert_error(400, "invalid_value", Some("model"));
    let response = get(server.address, "/v2/anything").await;
    response.assert_error(404, "unknown_route", None);

    let body = json!({"model": "base", "messages": messages});
    let response = post(server.address, CHAT, &body).await;
    response.assert_error(400, "chat_template_missing", Some("messages"));
    assert!(response.body.contains("base"));
}

#[tokio::test]
async fn what_http_refuses_has_openai_form() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let response = get(server.address, CHAT).await;
    response.assert_error(405, "method_not_allowed", None);
    assert_eq!(response.header("allow"), Some("POST"));

    for content_type in ["content-type: text/plain\r\n", ""] {
        let head = format!("POST {CHAT} HTTP/1.1\r\n{content_type}");
        let response = send(server.address, &head, "{}").await;
        response.assert_error(415, "unsupported_content_type", None);
        assert!(response.body.contains("content-type"));
    }
    let head = format!("POST {CHAT} HTTP/1.1\r\ncontent-type: Application/JSON; charset=utf-8\r\n");
    let response = send(server.address, &head, "{}").await;
    response.assert_error(400, "missing_parameter", Some("model"));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let cases = [
        (
            json!({"model": "test", "messages": messages, "tempersture": 1}),
            "unknown_parameter",
            "tempersture",
        ),
        (
            json!({"model": "test", "messages": messages, "n": 0}),
            "invalid_value",
            "n",
        ),
        (
            json!({"model": "test", "messages": []}),
            "invalid_value",
            "messages",
        ),
        (json!({"model": "test"}), "missing_parameter", "messages"),
        (
            json!({"model": "test", "messages": messages, "tools": [{}]}),
            "unsupported_parameter",
            "tools",
        ),
    ];
    for (body, code, param) in cases {
        let response = post(server.address, CHAT, &body).await;
        response.assert_error(400, code, Some(param));
    }
    let counted = "forebay_frontend_requests_total{endpoint=\"chat_completions\",model=\"\",\
                   status=\"4xx\"} 5";
    assert!(
        server.has_metric(counted),
        "{}",
        server.process.metrics.encode()
    );
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let config = FrontendConfig {
        body_limit_bytes: 1000,
        ..FrontendConfig::default()
    };
    let server = Server::with_config(ScriptedEngine::saying("ok"), config).await;
    // It is announced, and not one byte of it sent.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: 1001\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes).assert_error(413, "body_too_large", None);

    // It is not announced.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         connection: close\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n",
        " ".repeat(1001)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes).assert_error(413, "body_too_large", None);
}

#[tokio::test]
async fn choices_have_a_limit_over_all_prompts() {
    let config = FrontendConfig {
        max_choices: 4,
        ..FrontendConfig::default()
    };
    let server = Server::with_config(ScriptedEngine::saying("ok"), config).await;
    let body = json!({"model": "base", "prompt": ["a", "b"], "n": 2});
    assert_eq!(
        post(server.address, "/v1/completions", &body).await.status,
        200
    );
    let body = json!({"model": "base", "prompt": ["a", "b", "c"], "n": 2});
    let response = post(server.address, "/v1/completions", &body).await;
    response.assert_error(413, "too_many_choices", Some("n"));
    let body = json!({"model": "base", "prompt": ["a", "b", "c", "d", "e"]});
    let response = post(server.address, "/v1/completions", &body).await;
    response.assert_error(413, "too_many_choices", Some("prompt"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes).assert_error(408, "body_timeout", None);
}

#[tokio::test]
async fn what_an_engine_refuses_is_named_as_the_client_did() {
    let cases = [
        ("sampling.logit_bias", "logit_bias"),
        ("stop.stop_token_ids", "stop_token_ids"),
        ("output.logprobs", "logprobs"),
        ("prompt_token_ids", "messages"),
    ];
    for (named, expected) in cases {
        let engine = ScriptedEngine::new(move |_| Err(Error::invalid(named, "is not good")));
        let server = Server::start(engine).await;
        let body = json!({"model": "test", "messages": [{"role": "user", "content": "Hi"}]});
        let response = post(server.address, CHAT, &body).await;
        response.assert_error(400, "invalid_value", Some(expected));
        let message = format!("{expected}: is not good");
        assert_eq!(response.json()["error"]["message"], message);
    }
}
