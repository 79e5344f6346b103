//! What the log says. In a process of its own, because the log is the process's.
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use forebay_observability::{BuildInfo, LogConfig, LogFormat, Telemetry, TelemetryConfig};
use serde_json::{Value, json};

use crate::client::send;
use crate::engine::ScriptedEngine;
use crate::server::Server;

#[allow(dead_code, reason = "it is shared")]
#[path = "http/client.rs"]
mod client;
#[allow(dead_code, reason = "it is shared")]
#[path = "http/engine.rs"]
mod engine;
#[allow(dead_code, reason = "it is shared")]
#[path = "http/server.rs"]
mod server;

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_finished_request_is_one_line_of_the_log() {
    let log = Log::default();
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
    let writer = log.clone();
    let (dispatch, _telemetry) =
        Telemetry::dispatch(&config, &build, move || writer.clone()).unwrap();
    tracing::dispatcher::set_global_default(dispatch).unwrap();

    let server = Server::start(ScriptedEngine::saying("ok")).await;
    for body in [
        json!({"model": "test", "prompt": "abc", "stream": true}),
        json!({"model": "other", "prompt": "abc"}),
    ] {
        let head = "POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\n\
                    x-request-id: req-7\r\n";
        send(server.address, head, &body.to_string()).await;
    }
    let bytes = log.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [answered, refused] = &lines[..] else {
        panic!("{text}");
    };
    assert_eq!(answered["message"], "request answered");
    assert_eq!(answered["status"], 200);
    assert_eq!(answered["model"], "test");
    assert_eq!(answered["prompt_tokens"], 3);
    assert_eq!(answered["cached_tokens"], 0);
    assert_eq!(answered["completion_tokens"], 2);
    assert!(answered["ttft_seconds"].as_f64() <= answered["duration_seconds"].as_f64());
    assert_eq!(answered["spans"][0]["request_id"], "req-7");
    assert_eq!(refused["message"], "request refused");
    assert_eq!(refused["status"], 404);
    assert_eq!(refused["reason"], "model_not_found");
    assert_eq!(refused["spans"][0]["request_id"], "req-7");
}
