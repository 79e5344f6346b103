//! Workers that are registered and that nobody can reach.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use forebay_engine::Engine as _;
use forebay_engine::remote::{WorkerCard, engine_endpoint};
use forebay_frontend::FrontendConfig;
use forebay_observability::Registry;
use forebay_runtime::{Health, Instance, Planes, Tasks, TcpConfig, TcpPlane};
use forebay_tokens::WorkerId;

use crate::client::get;
use crate::engine::ScriptedEngine;
use crate::server::{NAMESPACE, Server};

#[tokio::test]
async fn readiness_says_that_the_only_worker_cannot_be_reached() {
    let registry = Registry::new();
    let tasks = Tasks::new(&registry);
    let plane = TcpPlane::bind(TcpConfig::default(), &tasks, &registry, &Health::new()).await;
    let planes = Planes {
        requests: Arc::new(plane.unwrap()),
        ..Planes::in_process()
    };
    let server = Server::following(&planes, FrontendConfig::default()).await;
    let ready = get(server.address, "/ready").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("no worker has come yet"),
        "{}",
        ready.body
    );

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = nobody.local_addr().unwrap();
    let (endpoint, worker) = (engine_endpoint(NAMESPACE).unwrap(), WorkerId(1));
    let engine = ScriptedEngine::saying("ok");
    let instance = Instance {
        address: format!("tcp://{nobody}/{endpoint}/{:016x}", worker.0),
        card: WorkerCard::new("m", engine.info().clone()).encode(),
        endpoint,
        worker,
    };
    let registration = planes.discovery.register(instance).await.unwrap();
    let told = format!("1 worker of model m is registered and cannot be reached (tcp://{nobody}");
    for path in ["/ready", "/health"] {
        while !get(server.address, path).await.body.contains(&told) {}
    }
    let unreached = "forebay_discovery_members{component=\"worker\",state=\"unreached\"} ";
    server.until_metric(&format!("{unreached}1")).await;
    registration.deregister().await.unwrap();
    while get(server.address, "/ready").await.body.contains(&told) {}
    server.until_metric(&format!("{unreached}0")).await;
}
