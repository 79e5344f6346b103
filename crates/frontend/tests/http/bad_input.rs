//! Bad input, each with the one error that it gets: the status, the code and the field.

use serde_json::{Value, json};

use crate::client::{Response, post, send};
use crate::engine::ScriptedEngine;
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

async fn post_text(server: &Server, path: &str, body: &str) -> Response {
    let head = format!("POST {path} HTTP/1.1\r\ncontent-type: application/json\r\n");
    send(server.address, &head, body).await
}

/// A conversation with one field more, or another.
fn chat(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "test", "messages": [{"role": "user", "content": "Hi"}]});
    body[field] = value;
    body
}

fn text(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "base", "prompt": "Hi"});
    body[field] = value;
    body
}

#[tokio::test]
async fn what_is_not_json() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model": "test", "messages": {open}{close}}}"#)
    };
    let flat = format!(
        r#"{{"model": "test", "messages": [{}]}}"#,
        "{},".repeat(1000)
    );
    let cases = [
        "",
        "{",
        "nonsense",
        r#"{"model": "test",}"#,
        r#"{"model": "test", "messages": [}"#,
        r#"{"model": "test", "messages": [], "n": 1e999}"#,
        r#"{"model": "test", "messages": [], "n": 01}"#,
        r#"{"model": "test", "model": "te"#,
        r#"{"model": "\ud800", "messages": []}"#,
        "{\"model\": \"a\u{0}b\", \"messages\": []}",
        &deep(129),
        &deep(200_000),
        &flat,
    ];
    for body in cases {
        let response = post_text(&server, CHAT, body).await;
        let shown = &body[..body.len().min(50)];
        assert_eq!(response.status, 400, "{shown}: {}", response.body);
        let error = &response.json()["error"];
        let code = error["code"].as_str().unwrap();
        let is_good = code == "invalid_json" || error["param"].is_string();
        assert!(is_good, "{shown}: {}", response.body);
        let message = error["message"].as_str().unwrap();
        assert!(message.len() < 300, "{shown}: {}", message.len());
    }
    for body in ["null", "7", "\"text\"", "null and void"] {
        let response = post_text(&server, CHAT, body).await;
        response.assert_error(400, "invalid_value", None);
        let message = &response.json()["error"]["message"];
        assert_eq!(message, "the body must be a JSON object");
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let cases: [&[u8]; 4] = [
        b"{\"model\": \"test\", \"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}",
        // Cut off, overlong, a surrogate.
        b"{\"model\": \"test\", \"messages\": [{\"role\": \"user\", \"content\": \"\xe2\x82\"}]}",
        b"{\"model\": \"test\", \"messages\": [{\"role\": \"user\", \"content\": \"\xc0\xaf\"}]}",
        b"{\"model\": \"test\", \"user\": \"\xed\xa0\x80\"}",
    ];
    for body in cases {
        let response = post_bytes(&server, body).await;
        response.assert_error(400, "invalid_json", None);
    }
}

async fn post_bytes(server: &Server, body: &[u8]) -> Response {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    crate::client::parse(&bytes)
}

#[tokio::test]
async fn values_of_another_type_or_out_of_range() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let content = |content: Value| json!([{"role": "user", "content": content}]);
    let cases = [
        ("model", json!(7), "model"),
        ("model", json!(null), "model"),
        ("messages", json!("Hi"), "messages"),
        ("messages", json!({}), "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!([7]), "messages[0]"),
        ("messages", json!([{"content": "x"}]), "messages[0].role"),
        (
            "messages",
            json!([{"role": 1, "content": "x"}]),
            "messages[0].role",
        ),
        ("messages", content(json!(7)), "messages[0].content"),
        ("messages", content(json!([7])), "messages[0].content"),
        (
            "messages",
            json!(vec![json!({"role": "user", "content": "x"}); 16_385]),
            "messages",
        ),
        (
            "messages",
            content(json!(vec![json!({"type": "text", "text": "x"}); 16_385])),
            "messages",
        ),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!(-1), "max_tokens"),
        ("max_tokens", json!(1.5), "max_tokens"),
        ("max_tokens", json!("5"), "max_tokens"),
        ("max_tokens", json!(u64::MAX), "max_tokens"),
        ("max_tokens", json!(1e300), "max_tokens"),
        ("max_completion_tokens", json!(-5), "max_completion_tokens"),
        ("n", json!(-1), "n"),
        ("n", json!(0), "n"),
        ("n", json!(129), "n"),
        ("n", json!(1e18), "n"),
        ("temperature", json!(-0.1), "temperature"),
        ("temperature", json!(2.1), "temperature"),
        ("temperature", json!(1e300), "temperature"),
        ("temperature", json!("hot"), "temperature"),
        ("top_p", json!(0), "top_p"),
        ("top_p", json!(1e300), "top_p"),
        ("top_k", json!(-2), "top_k"),
        ("top_k", json!(1e300), "top_k"),
        ("min_p", json!(-1), "min_p"),
        ("presence_penalty", json!(-1e300), "presence_penalty"),
        ("frequency_penalty", json!(2.5), "frequency_penalty"),
        ("repetition_penalty", json!(0), "repetition_penalty"),
        ("seed", json!(1.5), "seed"),
        ("seed", json!(1e300), "seed"),
        ("stop", json!([1]), "stop"),
        ("stop", json!(vec!["x"; 17]), "stop"),
        ("stop_token_ids", json!([-1]), "stop_token_ids[0]"),
        ("stop_token_ids", json!(vec![1; 65]), "stop_token_ids"),
        ("logit_bias", json!({"5": 101}), "logit_bias"),
        ("logit_bias", json!({"x": 1}), "logit_bias"),
        ("logit_bias", json!({"-1": 1}), "logit_bias"),
        ("logprobs", json!(5), "logprobs"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!(7), "stream_options"),
        ("priority", json!(1e300), "priority"),
        ("user", json!(7), "user"),
        ("chat_template_kwargs", json!(7), "chat_template_kwargs"),
        (
            "chat_template_kwargs",
            json!({"k": vec![1; 4096]}),
            "chat_template_kwargs",
        ),
        (
            "chat_template_kwargs",
            json!({"k": vec![json!({"a": 1}); 2048]}),
            "chat_template_kwargs",
        ),
        ("metadata", json!({"k": 7}), "metadata"),
        ("no_such_field", json!(1), "no_such_field"),
    ];
    for (field, value, param) in cases {
        let shown: String = value.to_string().chars().take(100).collect();
        let response = post(server.address, CHAT, &chat(field, value)).await;
        assert_eq!(response.status, 400, "{field}: {shown}: {}", response.body);
        let error = &response.json()["error"];
        let named = error["param"].as_str().unwrap_or_default();
        assert!(
            named.starts_with(param),
            "{field}: {shown}: {}",
            response.body
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    let prompts = [
        ("prompt", json!(""), "prompt"),
        ("prompt", json!([]), "prompt"),
        ("prompt", json!(["x", ""]), "prompt[1]"),
        ("prompt", json!([[]]), "prompt"),
        ("prompt", json!([[1], []]), "prompt[1]"),
        ("prompt", json!(["x", 1]), "prompt"),
        ("prompt", json!(7), "prompt"),
        ("prompt", json!(null), "prompt"),
        ("prompt", json!([-1]), "prompt"),
        ("prompt", json!([1e300]), "prompt"),
        ("prompt", json!([259]), "prompt[0]"),
        ("prompt", json!([[1], [4_000_000_000u32]]), "prompt[1][0]"),
        ("logprobs", json!(-1), "logprobs"),
        ("echo", json!("yes"), "echo"),
    ];
    for (field, value, param) in prompts {
        let shown = value.to_string();
        let response = post(server.address, TEXT, &text(field, value)).await;
        assert_eq!(response.status, 400, "{field}: {shown}: {}", response.body);
        let named = response.json()["error"]["param"].clone();
        assert_eq!(named, param, "{field}: {shown}: {}", response.body);
    }
}

#[tokio::test]
async fn prompts_beyond_the_context() {
    let engine = ScriptedEngine::saying("ok");
    let server = Server::start(engine.clone()).await;
    // The context has 200 tokens, and a byte is one.
    let long = "x".repeat(201);
    let huge = "word ".repeat(2_000_000);
    for prompt in [&*long, &*huge] {
        let messages = json!([{"role": "user", "content": prompt}]);
        let response = post(server.address, CHAT, &chat("messages", messages)).await;
        response.assert_error(400, "context_length_exceeded", Some("messages"));
        assert!(response.body.len() < 1000, "the prompt is not repeated");
        let response = post(server.address, TEXT, &text("prompt", json!(prompt))).await;
        response.assert_error(400, "context_length_exceeded", Some("prompt"));
        let tokens = vec![1; prompt.len().min(100_000)];
        let response = post(server.address, TEXT, &text("prompt", json!(tokens))).await;
        response.assert_error(400, "context_length_exceeded", Some("prompt"));
    }
    // A list's length is looked at before its tokens are.
    let lists = json!([[1], vec![4_000_000_000u32; 201]]);
    let response = post(server.address, TEXT, &text("prompt", lists)).await;
    response.assert_error(400, "context_length_exceeded", Some("prompt[1]"));
    assert!(engine.requests().is_empty(), "no engine was asked");
}

/// Pseudo-random numbers below `limit`: the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, limit: usize) -> usize {
        // Knuth's MMIX.
        self.0 = (self.0)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    /// The bytes with a few of them changed, doubled or left out.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.throw(3) {
            let at = self.throw(bytes.len());
            let end = (at + 1 + self.throw(8)).min(bytes.len());
            match self.throw(3) {
                0 => bytes[at] = b"\"{}[],:-e9\\u\0\xff\r\n "[self.throw(17)],
                1 => drop(bytes.drain(at..end)),
                _ => {
                    let piece = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
            }
        }
        bytes
    }
}

#[tokio::test]
async fn no_body_is_a_fault_of_the_server() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let good = json!({
        "model": "test",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "temperature": 0.5, "n": 2, "stop": ["a", "b"], "logit_bias": {"5": -1},
        "stream_options": null, "metadata": {"k": "v"}, "seed": 7,
    });
    let good = good.to_string();
    let mut dice = Dice(1);
    let mut answered = 0;
    for _ in 0..2000 {
        let body = dice.mutate(good.as_bytes());
        let response = post_bytes(&server, &body).await;
        let shown = String::from_utf8_lossy(&body);
        match response.status {
            200 => answered += 1,
            400 | 404 | 413 => {
                let error = &response.json()["error"];
                assert!(error["message"].is_string(), "{shown}: {}", response.body);
                assert!(error["code"].is_string(), "{shown}: {}", response.body);
            }
            other => panic!("{other} for {shown}: {}", response.body),
        }
    }
    assert!((1..1000).contains(&answered), "{answered} were still good");
}

#[tokio::test]
async fn no_bytes_are_a_fault_of_the_server() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let body = json!({"model": "base", "prompt": "x"}).to_string();
    let good = format!(
        "POST {TEXT} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         connection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let mut dice = Dice(2);
    let mut answers = 0;
    for _ in 0..2000 {
        let bytes = dice.mutate(good.as_bytes());
        let shown = String::from_utf8_lossy(&bytes);
        let mut stream = tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        // A request that is not whole is given up with its client.
        if answer.is_empty() {
            continue;
        }
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        answers += 1;
        assert!(answer.starts_with("HTTP/1."), "{shown}: {answer}");
        assert!(!status.starts_with('5'), "{shown}: {answer}");
        if status.starts_with('4') {
            assert!(answer.contains("{\"error\":{"), "{shown}: {answer}");
        }
    }
    assert!(answers > 100, "{answers}");
}
