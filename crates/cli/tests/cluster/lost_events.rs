//! Events that get lost between processes.

use forebay_testkit::{LossyNats, NatsServer};

use crate::cluster::Cluster;
use crate::load::Load;
use crate::wait::until_converged;

#[test]
fn every_frontend_knows_what_the_workers_hold_though_one_event_in_ten_is_lost() {
    let nats = NatsServer::start();
    let lossy = LossyNats::to(nats.port(), "forebay.ev.", 10).unwrap();
    let cluster = Cluster::with(&["--events", &lossy.url()]);
    let workers = [cluster.worker(&[]), cluster.worker(&[])];
    let frontends = [cluster.frontend(), cluster.frontend()];
    for frontend in &frontends {
        frontend.until_workers(2);
    }
    let load = Load::start(&frontends.each_ref().map(|f| f.address), 8, 20);
    load.go_on_for(100);
    load.finish().assert_all_complete();
    assert!(lossy.lost() > 0, "there is something to make up for");
    let held = workers
        .each_ref()
        .map(|worker| worker.metric("forebay_worker_kv_cached_blocks") + worker.active_blocks());
    let held: f64 = held.iter().sum();
    for frontend in &frontends {
        until_converged("its index is what the workers hold", || {
            let known = frontend.metric(r#"forebay_frontend_router_index_blocks{model="mocker"}"#);
            let inexact = frontend.metric(r#"forebay_frontend_kv_inexact_workers{model="mocker"}"#);
            (known, inexact) == (held, 0.0)
        });
    }
}
