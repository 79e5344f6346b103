//! Services that go away under load and come back.

use std::thread;
use std::time::Duration;

use forebay_testkit::{NatsServer, http};

use crate::cluster::{Cluster, Frontend};
use crate::load::Load;
use crate::wait::{until, until_converged};

/// How long a service is away: past every lease that the tests set, and less than the 10 s for which
/// requests by NATS wait, or as long as whoever runs them wants.
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
    until_converged("health is good again", || !degraded(&frontends[0]));
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
    use forebay_testkit::{Direction, Etcd, FaultProxy};

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
        until_converged("health is good again", || !degraded(&frontends[0]));
        for worker in &workers {
            let lost = || worker.metric("forebay_discovery_leases_lost_total");
            until_converged("a lease that ended is claimed anew", || lost() > 0.0);
        }
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
    fn etcd_is_away_and_then_nats_and_nobody_notices() {
        let (mut etcd, mut nats) = (Etcd::start(), NatsServer::start());
        let discovery = format!("etcd://{}", etcd.address());
        let cluster = Cluster::with(&["--discovery", &discovery, "--events", &nats.url()]);
        let _workers = [cluster.worker(&[]), cluster.worker(&[])];
        let frontends = [cluster.frontend(), cluster.frontend()];
        for frontend in &frontends {
            frontend.until_workers(2);
        }
        let load = Load::start(&frontends.each_ref().map(|f| f.address), 4, 60);
        etcd.kill();
        endure(&load);
        etcd.restart();
        nats.kill();
        endure(&load);
        nats.restart();
        for frontend in &frontends {
            until_converged("health is good again", || !degraded(frontend));
        }
        load.go_on_for(8);
        load.finish().assert_all_complete();
        for frontend in &frontends {
            assert_eq!((frontend.retries(), frontend.workers()), (0, 2));
        }
    }

    #[test]
    fn a_worker_that_etcd_does_not_hear_answers_on() {
        let etcd = Etcd::start();
        let cluster = cluster(&etcd);
        let proxy = FaultProxy::to(etcd.address().parse().unwrap()).unwrap();
        let discovery = format!("etcd://{}", proxy.address());
        let lease = "planes.lease_seconds=1";
        let worker = cluster.worker_on(&["--discovery", &discovery, "--set", lease]);
        let frontend = cluster.frontend();
        frontend.until_workers(1);
        let load = Load::start(&[frontend.address], 4, 60);
        load.go_on_for(4);
        proxy.stall(Direction::ToTarget);
        proxy.stall(Direction::ToClient);
        // Its key is gone from etcd after a second.
        let known = || frontend.metric("forebay_discovery_instances");
        let before = known();
        until("its record is gone", || known() < before);
        load.go_on_for(8);
        assert_eq!((frontend.retries(), frontend.workers()), (0, 1));
        proxy.pass();
        until("it is registered again", || known() == before);
        let lost = worker.metric("forebay_discovery_leases_lost_total");
        assert!(lost > 0.0);
        load.go_on_for(8);
        load.finish().assert_all_complete();
        assert_eq!((frontend.retries(), frontend.workers()), (0, 1));
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
