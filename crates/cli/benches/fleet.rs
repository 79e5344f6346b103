//! A fleet on one machine: how long until everyone may be routed to, and what each frontend takes.
//! Run by `cargo xtask bench fleet`, which prints a table for `docs/benchmarks.md`.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Child, http, usage};

const WORKER_PROCESSES: usize = 10;
const WORKERS_EACH: usize = 100;
const FRONTENDS: usize = 10;

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long CPU time is taken for.
const TIME: Duration = Duration::from_secs(5);

fn main() {
    // Cargo adds `--bench` to what it is told to hand over.
    let mut arguments = std::env::args().skip(1).filter(|text| text != "--bench");
    let repeats = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => 3,
        (Some("--repeats"), Some(repeats)) => repeats.parse().expect("--repeats takes a number"),
        _ => panic!("the arguments are none, or --repeats N"),
    };
    let mut measured: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for repeat in 1..=repeats {
        eprintln!("{repeat} of {repeats}");
        measure(|name, number| measured.entry(name).or_default().push(number));
    }
    println!(
        "| {WORKER_PROCESSES} x {WORKERS_EACH} mockers, {FRONTENDS} frontends | median | spread |"
    );
    println!("|---|---|---|");
    for (name, mut numbers) in measured {
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
        let median = numbers[numbers.len() / 2];
        println!("| {name} | {median:.2} | {least:.2} - {most:.2} |");
    }
}

/// Starts a fleet, measures it and ends it.
fn measure(mut put: impl FnMut(&'static str, f64)) {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = || {
        let count = WORKERS_EACH.to_string();
        let arguments = [
            "--engine",
            "mocker",
            "--workers",
            &count,
            "--status-port",
            "0",
        ];
        start(directory.path(), "worker", &arguments, "status")
    };
    let frontend = || start(directory.path(), "frontend", &["--port", "0"], "address");

    let mut workers: Vec<_> = (1..WORKER_PROCESSES).map(|_| worker()).collect();
    let began = Instant::now();
    let frontends: Vec<_> = (0..FRONTENDS).map(|_| frontend()).collect();
    until_ready(&frontends, (WORKER_PROCESSES - 1) * WORKERS_EACH);
    put(
        "seconds from the frontends' start until 900 workers are routable on each",
        began.elapsed().as_secs_f64(),
    );
    let began = Instant::now();
    workers.push(worker());
    until_ready(&frontends, WORKER_PROCESSES * WORKERS_EACH);
    put(
        "seconds from the last worker process' start until its 100 are routable on each",
        began.elapsed().as_secs_f64(),
    );

    let cpu = |processes: &[Process]| -> Duration {
        let times = processes.iter().map(|p| usage::cpu_time(p.child.id()));
        times.sum()
    };
    let before = (cpu(&frontends), cpu(&workers));
    thread::sleep(TIME);
    let after = (cpu(&frontends), cpu(&workers));
    let percent = |before: Duration, after: Duration, processes: usize| {
        (after - before).as_secs_f64() / TIME.as_secs_f64() * 100.0 / processes as f64
    };
    put(
        "CPU of an idle frontend, % of a core",
        percent(before.0, after.0, FRONTENDS),
    );
    put(
        "CPU of an idle worker process, % of a core",
        percent(before.1, after.1, WORKER_PROCESSES),
    );
    let mean = |processes: &[Process], of: fn(u32) -> f64| {
        let each = processes.iter().map(|process| of(process.child.id()));
        each.sum::<f64>() / processes.len() as f64
    };
    let mib = |process| usage::resident_bytes(process) as f64 / f64::from(1 << 20);
    put("memory of a frontend, MiB", mean(&frontends, mib));
    put("memory of a worker process, MiB", mean(&workers, mib));
    put(
        "descriptors of a frontend",
        mean(&frontends, |process| usage::descriptors(process) as f64),
    );
}

struct Process {
    child: Child,
    address: SocketAddr,
}

/// Starts a component, whose address is in a line of its banner.
fn start(directory: &Path, component: &str, arguments: &[&str], line: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command
        .env("TMPDIR", directory)
        .arg(component)
        .args(arguments)
        .args(["--set", "telemetry.log.filter=warn"]);
    let child = Child::spawn(&command).expect("forebay starts");
    let address = child.wait_line(PATIENCE, |said| {
        let url = said.strip_prefix(line)?.trim();
        url.strip_prefix("http://")?.parse().ok()
    });
    Process { child, address }
}

/// Waits until every frontend routes to so many workers.
fn until_ready(frontends: &[Process], count: usize) {
    let ready = format!(r#"forebay_frontend_workers{{model="mocker",state="ready"}} {count}"#);
    let deadline = Instant::now() + PATIENCE;
    for frontend in frontends {
        loop {
            let metrics = http::get(frontend.address, "/metrics").expect("it answers");
            if metrics.body.lines().any(|line| line == ready) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{:?} waits in vain",
                frontend.child
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}
