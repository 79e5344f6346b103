//! Frontends that share their workers.

use std::sync::Arc;

use forebay_frontend::FrontendConfig;
use forebay_router::{Mode, RouterConfig};
use forebay_runtime::{Planes, ShutdownCause};
use forebay_tokens::WorkerId;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::client::{get, open_post, read_until};
use crate::deployment::{Joined, Joining};
use crate::engine::{ScriptedEngine, Turn, opening, output};
use crate::server::Server;

const PATH: &str = "/v1/completions";
const WORKERS: [WorkerId; 2] = [WorkerId(1), WorkerId(2)];

fn config() -> FrontendConfig {
    FrontendConfig {
        router: RouterConfig {
            mode: Mode::LeastLoaded,
            ..RouterConfig::default()
        },
        ..FrontendConfig::default()
    }
}

/// Says a letter, and nothing more.
fn slow() -> Arc<ScriptedEngine> {
    let never = Arc::new(Semaphore::new(0));
    ScriptedEngine::new(move |request| {
        Ok(vec![
            Turn::Output(opening(request, 0)),
            Turn::Output(output(request, &[97])),
            Turn::Wait(never.clone()),
        ])
    })
}

async fn join(planes: &Planes, engines: &[Arc<ScriptedEngine>; 2]) -> Vec<Joined> {
    let mut joined = Vec::new();
    for (worker, engine) in WORKERS.into_iter().zip(engines) {
        joined.push(Joining::new("m", engine).join(planes, worker).await);
    }
    joined
}

/// Waits until a frontend has both workers, and so many others.
async fn until_there(server: &Server, others: usize) {
    let workers = "forebay_frontend_workers{model=\"m\",state=\"ready\"} 2";
    server.until_metric(workers).await;
    let replicas = format!("forebay_frontend_replicas_in_step {others}");
    server.until_metric(&replicas).await;
}

fn body() -> Value {
    json!({"model": "m", "prompt": "x", "stream": true})
}

#[tokio::test]
async fn each_sees_what_the_other_has_sent() {
    let planes = Planes::in_process();
    let engines = [slow(), slow()];
    let _joined = join(&planes, &engines).await;
    let first = Server::following(&planes, config()).await;
    let second = Server::following(&planes, config()).await;
    until_there(&first, 1).await;
    until_there(&second, 1).await;

    // One after another, by the one frontend or the other: a frontend that saw only its own would
    // send the second where the first is half of the time.
    let mut running = Vec::new();
    for (n, server) in [&first, &second, &second, &first, &second, &first]
        .into_iter()
        .enumerate()
    {
        let mut answer = open_post(server.address, PATH, &body()).await;
        read_until(&mut answer, "\"text\":\"a\"").await;
        running.push(answer);
        for server in [&first, &second] {
            let booked = format!("forebay_frontend_booked_requests{{model=\"m\"}} {}", n + 1);
            server.until_metric(&booked).await;
        }
        let live = engines.each_ref().map(|engine| engine.live());
        assert!(live[0].abs_diff(live[1]) <= 1, "{live:?}");
    }

    // What ends at the one ends at the other.
    running.clear();
    for server in [&first, &second] {
        server
            .until_metric("forebay_frontend_booked_requests{model=\"m\"} 0")
            .await;
        server
            .until_metric("forebay_frontend_replica_bookings 0")
            .await;
    }
}

#[tokio::test]
async fn who_comes_late_learns_what_runs_and_who_goes_leaves_nothing() {
    let planes = Planes::in_process();
    let engines = [slow(), slow()];
    let _joined = join(&planes, &engines).await;
    let first = Server::following(&planes, config()).await;
    until_there(&first, 0).await;
    let mut running = Vec::new();
    for _ in 0..4 {
        let mut answer = open_post(first.address, PATH, &body()).await;
        read_until(&mut answer, "\"text\":\"a\"").await;
        running.push(answer);
    }
    let second = Server::following(&planes, config()).await;
    until_there(&second, 1).await;
    let booked = "forebay_frontend_booked_requests{model=\"m\"} 4";
    second.until_metric(booked).await;

    first.end().await;
    second.until_metric("forebay_frontend_replicas 0").await;
    second
        .until_metric("forebay_frontend_booked_requests{model=\"m\"} 0")
        .await;
}

#[tokio::test]
async fn a_worker_that_comes_late_has_what_others_sent_there() {
    let planes = Planes::in_process();
    let engines = [slow(), slow()];
    let joined = join(&planes, &engines).await;
    let first = Server::following(&planes, config()).await;
    let second = Server::following(&planes, config()).await;
    until_there(&first, 1).await;
    until_there(&second, 1).await;
    let mut answer = open_post(first.address, PATH, &body()).await;
    read_until(&mut answer, "\"text\":\"a\"").await;
    let booked = |n| format!("forebay_frontend_booked_requests{{model=\"m\"}} {n}");
    second.until_metric(&booked(1)).await;
    // They say goodbye, and what runs there goes on; then they are there again.
    let mut served = Vec::new();
    for worker in joined {
        served.push(worker.leave().await);
    }
    second.until_metric(&booked(0)).await;
    second
        .until_metric("forebay_frontend_replica_bookings 1")
        .await;
    let mut known = Vec::new();
    for ((worker, engine), served) in WORKERS.into_iter().zip(&engines).zip(&served) {
        let joining = Joining::new("m", engine);
        known.push(joining.register(&planes, worker, served.address()).await);
    }
    second.until_metric(&booked(1)).await;
    drop(answer);
    second.until_metric(&booked(0)).await;
}

#[tokio::test]
async fn a_frontend_that_shuts_down_is_known_until_its_last_answer() {
    let planes = Planes::in_process();
    let engines = [slow(), slow()];
    let _joined = join(&planes, &engines).await;
    let first = Server::following(&planes, config()).await;
    let second = Server::following(&planes, config()).await;
    until_there(&first, 1).await;
    until_there(&second, 1).await;
    let mut answer = open_post(first.address, PATH, &body()).await;
    read_until(&mut answer, "\"text\":\"a\"").await;
    let booked = |n| format!("forebay_frontend_booked_requests{{model=\"m\"}} {n}");
    second.until_metric(&booked(1)).await;
    first
        .process
        .tasks
        .begin_shutdown(ShutdownCause::Requested("test"));
    // It hears of nobody's end, and still tells of its own.
    assert_eq!(get(second.address, "/live").await.status, 200);
    assert!(second.has_metric(&booked(1)));
    drop(answer);
    second.until_metric("forebay_frontend_replicas 0").await;
    second.until_metric(&booked(0)).await;
}
