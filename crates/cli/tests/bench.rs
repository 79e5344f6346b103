//! `forebay bench` against `forebay serve`, both as processes.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn forebay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
}

/// A mocker that takes no time.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let mut process = forebay()
            .args(["serve", "--engine", "mocker", "--port", "0"])
            .args([
                "--set",
                "mocker.speed=0",
                "--set",
                "telemetry.log.filter=error",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("address")?.trim().to_owned()))
            .unwrap();
        Self { process, url }
    }

    /// Runs `forebay bench` with one more flag: on a busy machine the generator may be late.
    fn bench(&self, flags: &[&str]) -> Output {
        let mut command = forebay();
        command
            .args(["bench", &self.url, "--allow-lag"])
            .args(flags);
        command.output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_mocker_is_measured() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let name = |name: &str| path(name).to_str().unwrap().to_owned();
    let (json, plot, jsonl) = (name("a.json"), name("a.svg"), name("a.jsonl"));
    let mut flags = vec![
        "--requests",
        "50",
        "--isl",
        "200",
        "--osl",
        "9",
        "--concurrency",
        "4",
    ];
    flags.extend(["--json", &json, "--plot", &plot, "--requests-jsonl", &jsonl]);
    let pid = server.process.id().to_string();
    if cfg!(target_os = "linux") {
        flags.extend(["--server-pid", &pid]);
    }
    let output = server.bench(&flags);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}{}", text(&output.stderr));
    assert!(table.contains("50 completed, 0 failed"), "{table}");
    assert!(output.stderr.is_empty(), "progress is for terminals");

    let report = report(&path("a.json"));
    assert_eq!(report["schema"], "forebay-bench/1");
    assert_eq!(
        report["run"]["tokens_per_word"], 1.0,
        "the mocker knows the words"
    );
    assert_eq!(report["tokens"]["input"], 50 * 200);
    assert_eq!(report["tokens"]["output"], 50 * 9);
    assert_eq!(report["tokens"]["cached"], 0, "every prompt is unique");
    assert_eq!(report["server_cpu"].is_object(), cfg!(target_os = "linux"));
    let lines = std::fs::read_to_string(path("a.jsonl")).unwrap();
    let numbers = lines.lines().map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["number"].as_u64().unwrap()
    });
    assert!(numbers.eq(0..50));
    assert!(
        std::fs::read_to_string(path("a.svg"))
            .unwrap()
            .starts_with("<svg")
    );
}

#[test]
fn a_trace_shares_its_prefixes() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let trace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/mooncake/conversation_head.jsonl");
    let mut flags = vec!["--trace", trace.to_str().unwrap(), "--speedup", "1000"];
    flags.extend(["--requests", "20", "--json", json.to_str().unwrap()]);
    let output = server.bench(&flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = report(&json);
    assert_eq!(report["requests"]["completed"], 20);
    let number = |pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    let asked: u64 = std::fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .take(20)
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["input_length"]
                .as_u64()
                .unwrap()
        })
        .sum();
    assert_eq!(number("/tokens/input"), asked);
    // Each of them begins with one and the same block of 512 tokens.
    assert!(number("/tokens/cached") >= 448, "{report}");
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (arguments, code, says) in [
        (vec![&*nobody], 1, "cannot connect to 127.0.0.1"),
        (
            vec!["http://127.0.0.1:1", "--json", "/no/such/folder/a"],
            1,
            "cannot write /no/such/folder/a",
        ),
        (
            vec!["http://127.0.0.1:1", "--shared-prefix", "500"],
            2,
            "shared prefix",
        ),
        (vec!["https://127.0.0.1"], 2, "https is not supported"),
    ] {
        let output = forebay().arg("bench").args(&arguments).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        let first = error.lines().next().unwrap();
        assert!(
            first.starts_with("error: ") && first.contains(says),
            "{error}"
        );
        assert!(output.stdout.is_empty());
        if code == 1 {
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
