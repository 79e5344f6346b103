//! Services that go away under load and come back.

use std::thread;
use std::time::Duration;

use forebay_testkit::{NatsServer, http};

use crate::cluster::{Cluster, Frontend};
use crate::load::Load;
use crate::wait::until;

/// How long a service is away: past every lease and time limit of the tests' settings, or as long
/// as whoever runs them wants.
fn outage() -> Duration {
    let seconds = std::env::var("FOREBAY_TEST_OUTAGE_SECONDS").ok();
    let seconds = seconds.map_or(3, |seconds| seconds.parse().expect("whole seconds"));
    Duration::from_secs(seconds)
}

/// Traffic goes on for as long as the outage lasts.
fn endure(load: &Load) {
    load.go_on_for(8);
    thread::sleep(outage());
    load.go_on_for(8);
}

/// What the frontend's health says is amiss.
fn degraded(frontend: &Frontend) -> bool {
    let health = http::get(frontend.address, "/health").unwrap();
    assert_eq!(health.status, 200, "{}", health.body);
    let health: serde_json::Value = serde_json::from_str(&health.body).unwrap();
    let degraded = health["degraded"].as_array();
    degraded.is_some_and(|degraded| !degraded.is_empty())
}

#[test]
fn nats_is_away_and_requests_go_on_over_tcp() {
    let mut nats = NatsServer::start();
    let cluster = Cluster::with(&["--events", &nats.url()]);
    let _workers = [cluster.worker(&[]), cluster.worker(&[])];
    let frontends = [cluster.frontend(), cluster.frontend()];
    for frontend in &frontends {
        frontend.until_workers(2);
    }
    let load = Load::start(&frontends.each_ref().map(|f| f.address), 4, 60);
    load.go_on_for(8);
    nats.kill();
    until("health says so", || degraded(&frontends[0]));
    endure(&load);
    nats.restart();
    until("health is good again", || !degraded(&frontends[0]));
    load.go_on_for(8);
    load.finish().assert_all_complete();
}

#[test]
fn nats_is_away_and_requests_over_it_end_or_go_on_and_none_hangs() {
    let mut nats = NatsServer::start();
    let url = nats.url();
    let cluster = Cluster::with(&["--events", &url, "--requests", "nats"]);
    let _workers = [cluster.worker(&[]), cluster.worker(&[])];
    let frontend = cluster.frontend();
    frontend.until_workers(2);
    let load = Load::start(&[frontend.address], 8, 60);
    load.go_on_for(8);
    nats.kill();
    thread::sleep(outage());
    nats.restart();
    frontend.until_workers(2);
    load.go_on_for(16);
    load.finish().assert_none_broken();
    // And from then on none fails.
    let load = Load::start(&[frontend.address], 8, 20);
    load.go_on_for(16);
    load.finish().assert_all_complete();
}

#[cfg(feature = "etcd")]
mod etcd {
    use forebay_testkit::Etcd;

    use super::*;
    use crate::wait::PATIENCE;

    fn cluster(etcd: &Etcd) -> Cluster {
        // Leases end within the outage.
        let lease = "planes.lease_seconds=1";
        Cluster::with(&[
            "--discovery",
            &format!("etcd://{}", etcd.address()),
            "--set",
            lease,
        ])
    }

    #[test]
    fn etcd_is_away_and_nobody_notices() {
        let mut etcd = Etcd::start();
        let cluster = cluster(&etcd);
        let mut workers = vec![cluster.worker(&[]), cluster.worker(&[])];
        let frontends = [cluster.frontend(), cluster.frontend()];
        for frontend in &frontends {
            frontend.until_workers(2);
        }
        let load = Load::start(&frontends.each_ref().map(|f| f.address), 4, 60);
        load.go_on_for(8);
        etcd.kill();
        until("health says so", || degraded(&frontends[0]));
        endure(&load);
        for frontend in &frontends {
            assert_eq!(frontend.workers(), 2);
        }
        etcd.restart();
        until("health is good again", || !degraded(&frontends[0]));
        // Who comes and goes is seen again.
        workers.push(cluster.worker(&[]));
        for frontend in &frontends {
            frontend.until_workers(3);
        }
        workers[0].child.terminate();
        assert_eq!(workers[0].child.wait_end(PATIENCE).code(), Some(0));
        for frontend in &frontends {
            frontend.until_workers(2);
        }
        load.go_on_for(8);
        load.finish().assert_all_complete();
    }

    #[test]
    fn a_worker_that_dies_while_etcd_is_away_is_out() {
        let mut etcd = Etcd::start();
        let cluster = cluster(&etcd);
        let killed = cluster.worker(&[]);
        let _other = cluster.worker(&[]);
        let frontend = cluster.frontend();
        frontend.until_workers(2);
        etcd.kill();
        let load = Load::start(&[frontend.address], 4, 40);
        load.go_on_for(4);
        killed.child.kill();
        frontend.until_workers(1);
        etcd.restart();
        load.go_on_for(8);
        assert_eq!(frontend.workers(), 1);
        load.finish().assert_all_complete();
    }
}
