//! A frontend's process alone, from its start to its end.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::process::Command;
use std::time::Duration;

use forebay_testkit::{Child, http};
use serde_json::{Value, json};
use tempfile::TempDir;

/// For what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A frontend on a free port, whose discovery is a directory of its own.
fn command(directory: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-frontend"));
    let discovery = format!("file:{}", directory.path().display());
    command
        .env_clear()
        .args(["--port", "0", "--discovery", &discovery])
        .args(arguments);
    command
}

#[test]
fn it_answers_without_workers_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Child::spawn(&command(&directory, &[])).unwrap();
    let address = child.wait_line(PATIENCE, |said| {
        let rest = said.strip_prefix("address")?.trim();
        rest.strip_prefix("http://")?.parse().ok()
    });

    assert_eq!(http::get(address, "/live").unwrap().status, 200);
    let ready = http::get(address, "/ready").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(
        ready.body.contains("no worker has come yet"),
        "{}",
        ready.body
    );
    let models = http::get(address, "/v1/models").unwrap().body;
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!(models["data"], json!([]));
    let body = r#"{"model":"nobody's","prompt":"x"}"#;
    let answer = http::post(address, "/v1/completions", body).unwrap();
    assert_eq!(answer.status, 404, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["error"]["code"], "model_not_found");

    child.terminate();
    assert!(child.wait_end(PATIENCE).success(), "{}", child.output());
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for (argument, says) in [
        ("namespace=No", "error: namespace must be 1 to 63"),
        ("planes.requests=pigeon", "planes.requests"),
    ] {
        let ended = command(&directory, &["--set", argument]).output().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        let error = String::from_utf8(ended.stderr).unwrap();
        assert!(
            error.contains(says) && error.lines().count() == 1,
            "{error}"
        );
    }
}
