//! What an operator does and asks while something is not there.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use forebay_testkit::{ReservedPort, http};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::wait::{PATIENCE, until};

/// An answer's JSON.
fn told(address: SocketAddr, path: &str) -> io::Result<Value> {
    let body = http::get(address, path)?.body;
    Ok(serde_json::from_str(&body).unwrap())
}

/// Fills the sockets both ways: asks again and again, and reads nothing.
fn ask_and_do_not_read(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    let wait = Some(Duration::from_millis(500));
    client.set_write_timeout(wait).unwrap();
    let asks = "GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".repeat(50);
    while client.write_all(asks.as_bytes()).is_ok() {}
    client
}

#[test]
fn clients_that_do_not_read_do_not_silence_a_worker() {
    let cluster = Cluster::new();
    let worker = cluster.worker(&[]);
    let clients: Vec<_> = (0..100)
        .map(|_| thread::spawn(move || ask_and_do_not_read(worker.status)))
        .collect();
    let held: Vec<_> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    assert_eq!(http::get(worker.status, "/live").unwrap().status, 200);
    drop(held);
}

/// A component whose etcd or NATS is not there says so from the start, is asked to end and ends in
/// order.
fn starts_without(planes: &[&str], degraded: &str, metric: &str) {
    let cluster = Cluster::with(planes);
    let port = || ReservedPort::any().unwrap();
    let (frontend, worker) = (port(), port());
    let (frontend, worker) = (frontend.address(), worker.address());
    let mut processes = [
        cluster.start("frontend", &["--port", &frontend.port().to_string()]),
        cluster.start(
            "worker",
            &[
                "--engine",
                "mocker",
                "--status-port",
                &worker.port().to_string(),
            ],
        ),
    ];
    for address in [frontend, worker] {
        until("health says so", || {
            let Ok(health) = told(address, "/health") else {
                return false;
            };
            health["degraded"][0]["name"] == degraded
        });
        let metrics = http::get(address, "/metrics").unwrap().body;
        assert!(metrics.contains(&format!("{metric} 0\n")), "{metrics}");
        let ready = told(address, "/ready").unwrap();
        assert_eq!(ready["ready"], false);
        let waits = ready["conditions"].as_array().unwrap().iter();
        let mut waits = waits.filter(|condition| condition["ready"] == false);
        assert!(
            waits.any(|condition| condition["name"] == degraded),
            "{ready}"
        );
    }
    for process in &mut processes {
        process.terminate();
        assert_eq!(process.wait_end(PATIENCE).code(), Some(0), "{process:?}");
    }
}

#[test]
fn nats_is_not_there_yet() {
    let nats = ReservedPort::any().unwrap();
    let url = format!("nats://{}", nats.address());
    starts_without(&["--events", &url], "nats", "forebay_nats_connected");
}

#[cfg(feature = "etcd")]
mod etcd {
    use forebay_testkit::Etcd;

    use super::*;
    use crate::answer::{Completion, End, assert_complete, streams};
    use crate::load::Load;

    fn cluster(etcd: &Etcd) -> Cluster {
        Cluster::with(&["--discovery", &format!("etcd://{}", etcd.address())])
    }

    #[test]
    fn a_worker_that_ends_while_etcd_is_away_finishes_what_it_has() {
        let mut etcd = Etcd::start();
        let cluster = cluster(&etcd);
        // No step of the end may take as long as the streams do.
        let worker = cluster.worker(&["--set", "shutdown.phase_seconds=0.2"]);
        let frontend = cluster.frontend();
        frontend.until_workers(1);
        etcd.kill();
        let streams = streams(frontend.address, 4, 500);
        worker.child.terminate();
        frontend.until_workers(0);
        assert_complete(streams);
    }

    #[test]
    fn a_worker_is_paused_and_resumed_while_etcd_is_away() {
        let etcd = Etcd::start();
        let cluster = cluster(&etcd);
        let workers: Vec<_> = (0..4).map(|_| cluster.worker(&[])).collect();
        let frontend = cluster.frontend();
        frontend.until_workers(4);
        etcd.pause();
        let control = |number: usize, what| {
            let path = format!("/engine/{what}");
            let answer = http::post(workers[number].status, &path, "").unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        for paused in 0..3 {
            control(paused, "pause");
        }
        frontend.until_workers(1);
        let load = Load::start(&[frontend.address], 4, 20);
        load.go_on_for(8);
        load.finish().assert_all_complete();
        control(0, "resume");
        frontend.until_workers(2);
        // Nobody else is there.
        control(3, "pause");
        frontend.until_workers(1);
        let answer = Completion::open(frontend.address, 10).unwrap();
        assert_eq!(answer.end(), End::Complete);
    }

    #[test]
    fn etcd_is_not_there_yet() {
        let etcd = ReservedPort::any().unwrap();
        let url = format!("etcd://{}", etcd.address());
        let metric = "forebay_discovery_connected";
        starts_without(&["--discovery", &url], "discovery", metric);
    }

    #[test]
    fn a_client_that_waits_is_told_when_a_start_is_given_up() {
        let etcd = ReservedPort::any().unwrap();
        let url = format!("etcd://{}", etcd.address());
        let timeout = "planes.connect_timeout_seconds=2";
        let cluster = Cluster::with(&["--discovery", &url, "--set", timeout]);
        let port = ReservedPort::any().unwrap();
        let address = port.address();
        let arguments = ["--port", &address.port().to_string()];
        let wait = ["--set", "frontend.worker_wait_seconds=60"];
        let mut frontend = cluster.start("frontend", &[arguments, wait].concat());
        until("it listens", || told(address, "/health").is_ok());
        let waiting = Completion::open(address, 10).map(Completion::end);
        assert!(matches!(waiting, Err(End::Typed(_))), "{waiting:?}");
        assert_eq!(frontend.wait_end(PATIENCE).code(), Some(1));
        let said = frontend.output();
        assert!(said.contains("etcd"), "{said}");
    }
}
