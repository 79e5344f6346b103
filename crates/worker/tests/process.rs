//! A worker's process, from its start to its end.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use forebay_engine::remote::engine_endpoint;
use forebay_mock_engine::MockerConfig;
use forebay_observability::Registry;
use forebay_runtime::{Discovery as _, FileConfig, FileDiscovery, Health, Instance, Tasks};
use forebay_testkit::{Child, http};
use serde_json::Value;
use tempfile::TempDir;

/// For what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker of mockers, whose discovery is a directory of its own.
fn command(directory: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-worker"));
    let discovery = format!("file:{}", directory.path().display());
    command
        .env_clear()
        .args(["--engine", "mocker", "--discovery", &discovery])
        .args(arguments);
    command
}

/// The address of a line of the banner.
fn address(child: &Child, line: &str, scheme: &str) -> SocketAddr {
    child.wait_line(PATIENCE, |said| {
        let rest = said.strip_prefix(line)?.trim().strip_prefix(scheme)?;
        rest.parse().ok()
    })
}

/// Who is there, as another process sees it.
async fn registered(directory: &TempDir) -> Vec<Instance> {
    let registry = Registry::new();
    let (tasks, health) = (Tasks::new(&registry), Health::new());
    let config = FileConfig::new(directory.path());
    let discovery = FileDiscovery::open(config, &tasks, &registry, &health).unwrap();
    discovery
        .list(&engine_endpoint("forebay").unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn it_registers_tells_who_it_is_and_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let topology = "topology.zone=north";
    let arguments = ["--workers", "2", "--status-port", "0", "--set", topology];
    let mut child = Child::spawn(&command(&directory, &arguments)).unwrap();
    let status = address(&child, "status", "http://");
    let listens = address(&child, "requests", "tcp://");
    assert!(status.ip().is_loopback() && listens.ip().is_loopback());

    assert_eq!(http::get(status, "/ready").unwrap().status, 200);
    let metadata = http::get(status, "/metadata").unwrap().body;
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let workers = metadata["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    let told: BTreeSet<_> = workers
        .iter()
        .map(|worker| {
            assert_eq!(worker["registered"], true);
            assert_eq!(worker["card"]["topology"]["zone"], "north");
            worker["address"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(told.len(), 2);
    let at = format!("tcp://{listens}/");
    assert!(
        told.iter().all(|address| address.starts_with(&at)),
        "{told:?}"
    );
    let found = registered(&directory).await.into_iter();
    assert_eq!(
        found
            .map(|instance| instance.address)
            .collect::<BTreeSet<_>>(),
        told
    );

    let metrics = http::get(status, "/metrics").unwrap().body;
    let blocks = u64::from(MockerConfig::default().kv_blocks) * 2;
    for line in [
        "forebay_worker_running_requests 0".to_owned(),
        format!("forebay_worker_kv_blocks {blocks}"),
        "forebay_worker_kv_announced_blocks{engine=\"1\"} 0".to_owned(),
        format!(
            "forebay_worker_kv_ring_limit_bytes{{engine=\"0\"}} {}",
            4 << 20
        ),
        "forebay_worker_kv_ranges_served_total{engine=\"0\"} 0".to_owned(),
        "forebay_worker_kv_snapshots_served_total{engine=\"0\"} 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    let health = http::get(status, "/health").unwrap().body;
    let health: Value = serde_json::from_str(&health).unwrap();
    let conditions = health["conditions"].as_array().unwrap().iter();
    let names: BTreeSet<_> = conditions
        .map(|condition| condition["name"].as_str().unwrap().to_owned())
        .collect();
    let ids = workers.iter().map(|told| told["worker"].as_str().unwrap());
    assert_eq!(names, ids.map(|id| format!("worker {id}")).collect());

    child.terminate();
    assert!(child.wait_end(PATIENCE).success(), "{}", child.output());
    assert_eq!(registered(&directory).await, [], "it said goodbye");
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for (argument, says) in [
        (
            "workers.count=5000",
            "error: workers.count must be from 1 to 4096",
        ),
        ("planes.requests=pigeon", "planes.requests"),
        ("mocker.speed=-1", "error: wrong setting in `mocker`: speed"),
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
