//! `examples/cluster`, as a user would run it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Child, ReservedPort, http};

use crate::answer::{Completion, End};
use crate::wait::{PATIENCE, until};

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

fn example(file: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/cluster");
    folder.join(file)
}

/// Ends as a user would end it, so that nothing it started is left, also if the test fails.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        self.0.terminate();
        let deadline = Instant::now() + PATIENCE;
        while self.0.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What Ctrl-C does in a terminal: every process of the group gets the signal.
fn interrupt(leader: &Child) {
    let group = format!("-{}", leader.id());
    let kill = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(kill.unwrap().success());
}

/// Runs the script, asks both frontends, ends it, and looks for what it left behind.
fn run(services: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let [etcd, nats] = [(); 2].map(|()| ReservedPort::any().unwrap());
    let port = |reserved: &ReservedPort| reserved.address().port().to_string();
    // A leader of a group that hears Ctrl-C, as in a terminal, even where whoever runs the tests
    // has it ignored.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", "setsid"])
        .arg(example("run"))
        .args(services)
        .env("FOREBAY", FOREBAY)
        .env("TMPDIR", directory.path())
        .env("PORT", "0")
        .env("ETCD_PORT", port(&etcd))
        .env("NATS_PORT", port(&nats));
    let mut script = Script(Child::spawn(&command).unwrap());

    let mut frontends: Vec<SocketAddr> = Vec::new();
    script.0.wait_line(PATIENCE, |line| {
        let url = line.strip_prefix("address")?.trim();
        frontends.push(url.strip_prefix("http://")?.parse().ok()?);
        (frontends.len() == 2).then_some(())
    });
    for frontend in frontends {
        until("there are four workers", || {
            let metrics = http::get(frontend, "/metrics").unwrap().body;
            let line = r#"forebay_frontend_workers{model="mocker",state="ready"} 4"#;
            metrics.lines().any(|found| found == line)
        });
        let completion = Completion::open(frontend, 10).unwrap();
        assert_eq!(completion.end(), End::Complete);
    }

    interrupt(&script.0);
    assert_eq!(script.0.wait_end(PATIENCE).code(), Some(0));
    let said = script.0.output();
    assert!(!said.contains("second signal"), "{said}");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn it_runs_without_services() {
    run(None);
}

#[cfg(feature = "etcd")]
#[test]
fn it_runs_over_etcd_and_nats() {
    run(Some("services"));
}

#[test]
fn every_command_of_the_procfile_is_one() {
    let procfile = fs::read_to_string(example("Procfile")).unwrap();
    let commands = procfile
        .lines()
        .filter_map(|line| line.split_once(": forebay "));
    let mut count = 0;
    for (name, arguments) in commands {
        let mut command = Command::new(FOREBAY);
        command.args(arguments.split(' ')).arg("--print-config");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        count += 1;
    }
    assert_eq!(count, 6);
}
