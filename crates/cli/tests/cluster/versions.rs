//! Two versions of a model, and weights that move between them while they serve.

use std::net::SocketAddr;

use forebay_testkit::http;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Frontend, Worker};
use crate::load::Load;
use crate::wait::until;

/// A version of the model, and the worker that it has.
struct Version {
    worker: Worker,
    digest: String,
}

impl Version {
    /// The one whose blocks have so many tokens.
    fn start(cluster: &Cluster, block_size: u32, weight: &str) -> Self {
        let block_size = format!("mocker.block_size_tokens={block_size}");
        let worker = cluster.worker(&["--set", &block_size, "--weight", weight]);
        let metadata = json_of(worker.status, "/metadata");
        let digest = metadata["workers"][0]["card"]["digest"].as_str();
        let digest = digest.unwrap().to_owned();
        Self { worker, digest }
    }

    /// What an operator tells the worker.
    fn weigh(&self, weight: f64) {
        let card = json!({ "weight": weight }).to_string();
        let answer = http::post(self.worker.status, "/engine/card", &card).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Its part of the new requests, as the list of models tells; 0 while it is not there.
    fn share(&self, frontend: &Frontend) -> f64 {
        let models = json_of(frontend.address, "/v1/models");
        let versions = models["data"][0]["versions"].as_array().cloned();
        let versions = versions.unwrap_or_default().into_iter();
        let mut own = versions.filter(|version| version["digest"] == *self.digest);
        own.next().map_or(0.0, |own| own["share"].as_f64().unwrap())
    }

    /// KV blocks that its worker holds: more with every prompt that it has not had yet.
    fn blocks(&self) -> f64 {
        let series = r#"forebay_worker_kv_announced_blocks{engine="0"}"#;
        self.worker.metric(series)
    }
}

fn json_of(address: SocketAddr, path: &str) -> Value {
    let answer = http::get(address, path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Which of two versions answers from now on: one only.
fn answers(frontend: &Frontend, versions: [&Version; 2]) -> [bool; 2] {
    // What was asked before has ended, and told of its blocks.
    let settled = || {
        let mut before = versions.map(Version::blocks);
        until("no blocks come any more", || {
            let now = versions.map(Version::blocks);
            std::mem::replace(&mut before, now) == now
        });
        before
    };
    let before = settled();
    let load = Load::start(&[frontend.address], 1, 2);
    load.go_on_for(8);
    load.finish().assert_all_complete();
    until("blocks come", || versions.map(Version::blocks) != before);
    let after = settled();
    [after[0] > before[0], after[1] > before[1]]
}

/// Moves all requests from one version to the other and back.
fn move_over_and_back(frontends: &[Frontend], versions: [&Version; 2]) {
    let [old, new] = versions;
    for (from, to, expected) in [(old, new, [false, true]), (new, old, [true, false])] {
        to.weigh(1.0);
        from.weigh(0.0);
        for frontend in frontends {
            until("the share has moved", || to.share(frontend) == 1.0);
            assert_eq!(from.share(frontend), 0.0);
            assert_eq!(answers(frontend, versions), expected);
        }
    }
}

#[test]
fn requests_move_to_another_version_by_weight() {
    let cluster = Cluster::new();
    let old = Version::start(&cluster, 32, "3");
    let new = Version::start(&cluster, 64, "1");
    assert_ne!(old.digest, new.digest);
    let frontends = [cluster.frontend(), cluster.frontend()];
    for frontend in &frontends {
        until("both versions are there", || new.share(frontend) == 0.25);
        assert_eq!(old.share(frontend), 0.75);
    }
    let load = Load::start(&frontends.each_ref().map(|f| f.address), 4, 20);
    load.go_on_for(8);
    new.weigh(9.0);
    for frontend in &frontends {
        until("the share has moved", || new.share(frontend) == 0.75);
    }
    load.go_on_for(8);
    load.finish().assert_all_complete();
    move_over_and_back(&frontends, [&old, &new]);
}

/// The only worker of a version has taken requests and said nothing yet when it ends or is killed.
#[test]
fn what_has_not_begun_goes_over_to_another_version() {
    for is_killed in [true, false] {
        let cluster = Cluster::new();
        // A prompt of a test takes half a minute: it does not get to a token.
        let slow = r#"mocker.perf_model={kind="polynomial",prefill_token_seconds=0.5}"#;
        let at_once = "shutdown.grace_seconds=0.2";
        let old = cluster.worker(&["--set", slow, "--set", at_once]);
        let frontend = cluster.frontend();
        frontend.until_workers(1);
        let load = Load::start(&[frontend.address], 4, 20);
        let waiting = || old.metric("forebay_worker_waiting_requests");
        until("the old version has them", || {
            old.running() + waiting() == 4.0
        });
        let new = Version::start(&cluster, 32, "1");
        until("the new version is there", || new.share(&frontend) == 0.5);
        match is_killed {
            true => old.child.kill(),
            false => old.child.terminate(),
        }
        load.go_on_for(8);
        load.finish().assert_all_complete();
        let log = frontend.child.output();
        assert!(log.matches("request goes over").count() >= 4, "{log}");
    }
}

#[cfg(feature = "etcd")]
#[test]
fn weights_move_while_etcd_is_away() {
    let mut etcd = forebay_testkit::Etcd::start();
    let url = format!("etcd://{}", etcd.address());
    let cluster = Cluster::with(&["--discovery", &url, "--set", "planes.lease_seconds=1"]);
    let old = Version::start(&cluster, 32, "1");
    let new = Version::start(&cluster, 64, "0");
    let frontends = [cluster.frontend()];
    until("both versions are there", || {
        let model = json_of(frontends[0].address, "/v1/models");
        let versions = model["data"][0]["versions"].as_array();
        versions.is_some_and(|versions| versions.len() == 2)
    });
    assert_eq!(old.share(&frontends[0]), 1.0);
    etcd.kill();
    move_over_and_back(&frontends, [&old, &new]);
    new.weigh(3.0);
    until("the share has moved", || new.share(&frontends[0]) == 0.75);

    // What was said meanwhile is what discovery tells who comes afterwards.
    etcd.restart();
    let later = cluster.frontend();
    until("a new frontend knows it", || new.share(&later) == 0.75);
    assert_eq!(old.share(&later), 0.25);
}
