//! `forebay serve` over several workers, as a process.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Long enough for anything that is going to come at all.
const PATIENCE: Duration = Duration::from_secs(60);

fn serve() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command
        .args(["serve", "--engine", "mocker", "--port", "0"])
        .args(["--set", "telemetry.log.filter=error"]);
    command
}

/// Mockers; killed when it is dropped.
struct Server {
    process: Child,
    address: String,
    banner: String,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        let mut process = serve().args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut banner = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the banner has the address").unwrap();
            banner.push_str(&line);
            banner.push('\n');
            if let Some(url) = line.strip_prefix("address") {
                break url.trim().trim_start_matches("http://").to_owned();
            }
        };
        Self {
            process,
            address,
            banner,
        }
    }

    fn ask(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {length}\r\n\
             content-type: application/json\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        body.to_owned()
    }

    fn complete(&self, prompt: &str, max_tokens: u32) -> Value {
        let body = json!({
            "model": "mocker", "prompt": prompt, "max_tokens": max_tokens, "seed": 7,
        });
        let answer = self.ask("POST /v1/completions", &body.to_string());
        serde_json::from_str(&answer).unwrap()
    }

    /// Waits until the metrics have this line.
    fn until_metric(&self, line: &str) {
        let begun = Instant::now();
        loop {
            let metrics = self.ask("GET /metrics", "");
            if metrics.lines().any(|found| found == line) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never {line}:\n{metrics}");
            thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A prompt of `words` words, each a token, told apart by `topic`.
fn prompt(topic: usize, words: usize) -> String {
    format!("topic {topic}") + &" baba".repeat(words)
}

#[test]
fn a_shared_prefix_is_found_again_among_many_workers() {
    let server = Server::start(&["--workers", "16", "--set", "mocker.speed=0"]);
    assert!(
        server.banner.contains("16 mocker engines, chosen by kv"),
        "{}",
        server.banner
    );
    server.until_metric("forebay_frontend_workers{model=\"mocker\",state=\"ready\"} 16");
    for topic in 0..8 {
        let first = server.complete(&prompt(topic, 300), 1);
        assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    }
    // 300 words are four blocks of 64 tokens and some; every topic has its own.
    server.until_metric("forebay_frontend_router_index_blocks{model=\"mocker\"} 32");
    for topic in (0..8).rev() {
        let again = server.complete(&prompt(topic, 310), 1);
        assert_eq!(
            again["usage"]["prompt_tokens_details"]["cached_tokens"], 256,
            "{again}"
        );
    }
    server.until_metric("forebay_frontend_booked_requests{model=\"mocker\"} 0");
}

#[test]
fn round_robin_takes_turns() {
    let flags = [
        "--workers",
        "2",
        "--router-mode",
        "round-robin",
        "--set",
        "mocker.speed=0",
    ];
    let server = Server::start(&flags);
    server.until_metric("forebay_frontend_workers{model=\"mocker\",state=\"ready\"} 2");
    let cached = [0, 1, 2, 3].map(|_| {
        let answer = server.complete(&prompt(0, 300), 1);
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].clone()
    });
    assert_eq!(cached, [0, 0, 256, 256]);
}

/// Two mockers, the first of which has a fault.
fn with_fault(fault: &str, after_seconds: f64, settings: &[&str]) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("serve.toml");
    let fault = format!(
        "[[mocker.faults]]\nafter_seconds = {after_seconds}\ninstance = 1\nfault = {fault}\n"
    );
    std::fs::write(&file, fault).unwrap();
    let flags = ["--workers", "2", "--config", file.to_str().unwrap()];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    Server::start(&flags.into_iter().chain(settings).collect::<Vec<_>>())
}

/// Asks for two answers at once, one for each worker. The one that begins where the fault is goes
/// on at the other, which leaves it as whole as the one that was always there.
fn one_moves(server: &Server, tokens: u32) {
    let [one, two] = thread::scope(|scope| {
        let asking = [0, 1].map(|_| scope.spawn(|| server.complete("Once", tokens)));
        asking.map(|asking| asking.join().unwrap())
    });
    assert_eq!(one["usage"]["completion_tokens"], tokens);
    assert_eq!(one["choices"], two["choices"]);
    assert_eq!(
        one["usage"]["completion_tokens"],
        two["usage"]["completion_tokens"]
    );
    server.until_metric("forebay_frontend_workers{model=\"mocker\",state=\"ready\"} 1");
    server.until_metric("forebay_frontend_retries_total{model=\"mocker\"} 1");
    server.until_metric("forebay_frontend_booked_requests{model=\"mocker\"} 0");
}

#[test]
fn an_answer_survives_the_worker_that_crashes() {
    // At 6 ms a token the answers take twice as long as it is to the crash, or more.
    one_moves(&with_fault("\"crash\"", 3.0, &[]), 1000);
}

#[test]
fn an_answer_survives_the_worker_that_stalls() {
    let settings = ["worker.stall_timeout_seconds=2"];
    one_moves(
        &with_fault("{ stall = { seconds = 3600 } }", 1.5, &settings),
        500,
    );
}

#[test]
fn settings_of_workers_are_checked() {
    let printed = serve()
        .args([
            "--workers",
            "3",
            "--router-mode",
            "least-loaded",
            "--print-config",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    for line in [
        "frontend.router.mode = \"least-loaded\"  # flag --router-mode",
        "workers.count = 3  # flag --workers",
        "workers.engine = \"mocker\"  # flag --engine",
    ] {
        assert!(
            printed.lines().any(|found| found == line),
            "{line}\n{printed}"
        );
    }
    for (flags, said) in [
        (["--workers", "0"], "workers.count"),
        (["--router-mode", "nearest"], "router"),
        (["--set", "frontend.router.mode=direct"], "router.mode"),
        (["--set", "mocker.speeed=0"], "mocker.speed"),
        (["--set", "worker.retry_seconds=0"], "retry_seconds"),
    ] {
        let output = serve().args(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
}
