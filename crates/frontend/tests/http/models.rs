//! Models that come and go as workers do.

use std::sync::Arc;

use forebay_engine::remote::{WorkerCard, WorkerRole, engine_endpoint, report_topic};
use forebay_engine::{Error, ErrorClass, Load};
use forebay_frontend::FrontendConfig;
use forebay_protocols::worker;
use forebay_runtime::Planes;
use forebay_tokens::WorkerId;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::client::{Response, get, open_post, post, read_until};
use crate::deployment::Joining;
use crate::engine::{ScriptedEngine, Turn, say};
use crate::server::{NAMESPACE, Server, until};

const PATH: &str = "/v1/completions";
const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const C: WorkerId = WorkerId(3);

/// Requests wait for workers for as long as a test runs.
fn patient() -> FrontendConfig {
    FrontendConfig {
        worker_wait_seconds: 600.0,
        ..FrontendConfig::default()
    }
}

async fn complete(server: &Server, model: &str) -> Response {
    post(
        server.address,
        PATH,
        &json!({"model": model, "prompt": "x"}),
    )
    .await
}

async fn text(server: &Server, model: &str) -> Value {
    let response = complete(server, model).await;
    assert_eq!(response.status, 200, "{}", response.body);
    response.json()["choices"][0]["text"].clone()
}

/// The names in the list of models.
async fn listed(server: &Server) -> Vec<String> {
    let list = get(server.address, "/v1/models").await.json();
    let models = list["data"].as_array().unwrap().iter();
    models.map(|m| m["id"].as_str().unwrap().into()).collect()
}

async fn until_listed(server: &Server, names: &[&str]) {
    while listed(server).await != names {}
}

/// What is amiss with models, as `/health` tells.
async fn amiss(server: &Server) -> Option<String> {
    let health = get(server.address, "/health").await.json();
    let degraded = health["degraded"].as_array().unwrap().first()?.clone();
    assert_eq!(degraded["name"], "models");
    Some(degraded["reason"].as_str().unwrap().into())
}

async fn until_amiss(server: &Server, what: &str) {
    loop {
        match amiss(server).await {
            Some(reason) if reason.contains(what) => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_model_comes_with_its_first_worker_and_goes_after_its_last() {
    let planes = Planes::in_process();
    let config = FrontendConfig {
        model_linger_seconds: 0.05,
        ..patient()
    };
    let server = Server::following(&planes, config).await;
    let ready = get(server.address, "/ready").await;
    assert_eq!(ready.status, 503);
    let condition = &ready.json()["conditions"][0];
    assert_eq!(condition["reason"], "no worker has come yet");
    let response = complete(&server, "m").await;
    response.assert_error(404, "model_not_found", Some("model"));

    let engine = ScriptedEngine::saying("ok");
    let worker = Joining::new("m", &engine).with_alias("org/m");
    let digest = worker.card.digest().to_string();
    let worker = worker.join(&planes, A).await;
    until_listed(&server, &["m", "org/m"]).await;
    assert_eq!(get(server.address, "/ready").await.status, 200);
    let model = get(server.address, "/v1/models/org/m").await.json();
    assert_eq!(model["max_model_len"], 200);
    let versions = json!([{"digest": digest, "ready_workers": 1, "share": 1.0}]);
    assert_eq!(model["versions"], versions);
    let metric =
        format!("forebay_frontend_model_version_workers{{model=\"m\",digest=\"{digest}\"}} 1");
    server.until_metric(&metric).await;
    assert_eq!(text(&server, "org/m").await, "ok");
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let answer = post(server.address, "/v1/chat/completions", &chat).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let asked = engine.requests().pop().unwrap();
    assert_eq!(asked.prompt_token_ids, [72, 105], "by its own template");
    let counted = "forebay_frontend_requests_total{endpoint=\"completions\",model=\"m\",\
                   status=\"2xx\"} 1";
    assert!(server.has_metric(counted));

    drop(worker.leave().await);
    until_listed(&server, &[]).await;
    assert_eq!(get(server.address, "/ready").await.status, 503);
    complete(&server, "m")
        .await
        .assert_error(404, "model_not_found", Some("model"));
    // Nothing is left of it, also of requests that it had.
    until(|| !server.process.metrics.encode().contains("model=\"m\"")).await;
    let _worker = Joining::new("m", &engine).join(&planes, B).await;
    let anew = counted.replace("} 1", "} 0");
    server.until_metric(&anew).await;
}

#[tokio::test]
async fn a_model_without_workers_is_waited_for() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let joining = || Joining::new("m", &ScriptedEngine::saying("ok"));
    let worker = joining().join(&planes, A).await;
    until_listed(&server, &["m"]).await;
    drop(worker.leave().await);
    server
        .until_metric("forebay_frontend_workers{model=\"m\",state=\"ready\"} 0")
        .await;
    let body = json!({"model": "m", "prompt": "x"});
    let mut waiting = open_post(server.address, PATH, &body).await;
    server.until_metric("forebay_frontend_waiting 1").await;
    let ready = get(server.address, "/ready").await.json();
    assert_eq!(ready["conditions"][0]["reason"], "no worker for m");
    let _worker = joining().join(&planes, B).await;
    read_until(&mut waiting, "\"text\":\"ok\"").await;
}

#[tokio::test]
async fn who_waits_for_a_model_gets_whichever_version_comes() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let (old, new) = (ScriptedEngine::saying("old"), ScriptedEngine::saying("new"));
    let worker = Joining::new("m", &old).with_weights("1");
    let worker = worker.join(&planes, A).await;
    until_listed(&server, &["m"]).await;
    drop(worker.leave().await);
    server
        .until_metric("forebay_frontend_workers{model=\"m\",state=\"ready\"} 0")
        .await;
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let mut waiting = open_post(server.address, "/v1/chat/completions", &chat).await;
    server.until_metric("forebay_frontend_waiting 1").await;
    let worker = Joining::new("m", &new).with_template("{{ messages[0].content[:1] }}");
    let _worker = worker.join(&planes, B).await;
    read_until(&mut waiting, "\"content\":\"new\"").await;
    let asked = &new.requests()[0];
    assert_eq!(asked.prompt_token_ids, [72], "by its own template");
    server.until_metric("forebay_frontend_waiting 0").await;
}

#[tokio::test]
async fn who_has_waited_long_enough_is_told_when_to_come_back() {
    let planes = Planes::in_process();
    let config = FrontendConfig {
        worker_wait_seconds: 0.01,
        ..FrontendConfig::default()
    };
    let server = Server::following(&planes, config).await;
    let worker = Joining::new("m", &ScriptedEngine::saying("ok"));
    let worker = worker.join(&planes, A).await;
    until_listed(&server, &["m"]).await;
    drop(worker.leave().await);
    server
        .until_metric("forebay_frontend_workers{model=\"m\",state=\"ready\"} 0")
        .await;
    let response = complete(&server, "m").await;
    response.assert_error(503, "no_worker_ready", None);
    assert_eq!(response.header("retry-after"), Some("1"));
    let counted = "forebay_frontend_requests_total{endpoint=\"completions\",model=\"m\",\
                   status=\"5xx\"} 1";
    assert!(server.has_metric(counted));
}

#[tokio::test]
async fn a_frontend_that_starts_lets_requests_wait_for_who_is_there() {
    let planes = Planes::in_process();
    // Known, but not reached yet.
    let joining = Joining::new("m", &ScriptedEngine::saying("ok"));
    let _there = joining.register(&planes, A, "nowhere").await;
    let server = Server::following(&planes, patient()).await;
    let body = json!({"model": "m", "prompt": "x"});
    let mut waiting = open_post(server.address, PATH, &body).await;
    server.until_metric("forebay_frontend_waiting 1").await;
    let _worker = joining.join(&planes, B).await;
    read_until(&mut waiting, "\"text\":\"ok\"").await;
    let counted = "forebay_frontend_requests_total{endpoint=\"completions\",model=\"m\",\
                   status=\"2xx\"} 1";
    server.until_metric(counted).await;
}

#[tokio::test]
async fn a_model_that_does_not_come_in_time_is_told_to_be_missing_now() {
    let planes = Planes::in_process();
    let config = FrontendConfig {
        worker_wait_seconds: 0.01,
        ..FrontendConfig::default()
    };
    let joining = Joining::new("m", &ScriptedEngine::saying("ok"));
    let there = joining.register(&planes, A, "nowhere").await;
    let server = Server::following(&planes, config).await;
    let response = complete(&server, "m").await;
    response.assert_error(503, "no_worker_ready", None);
    assert_eq!(response.header("retry-after"), Some("1"));
    drop(there);
}

#[tokio::test]
async fn a_model_whose_text_is_fetched_is_waited_for() {
    let planes = Planes::in_process();
    let config = FrontendConfig {
        worker_wait_seconds: 0.01,
        ..FrontendConfig::default()
    };
    let server = Server::following(&planes, config).await;
    while complete(&server, "other").await.status != 404 {}
    let silent = Joining::new("m", &ScriptedEngine::saying("ok"))
        .with_alias("x")
        .silent();
    let _silent = silent.join(&planes, A).await;
    while complete(&server, "m").await.status == 404 {}
    for name in ["m", "x"] {
        let response = complete(&server, name).await;
        response.assert_error(503, "no_worker_ready", None);
    }
    let response = complete(&server, "other").await;
    response.assert_error(404, "model_not_found", Some("model"));
}

#[tokio::test]
async fn two_versions_share_the_requests_while_one_replaces_the_other() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let (old, new) = (ScriptedEngine::saying("old"), ScriptedEngine::saying("new"));
    let leaving = Joining::new("m", &old)
        .with_weights("1")
        .join(&planes, A)
        .await;
    until_listed(&server, &["m"]).await;
    let _staying = Joining::new("m", &new)
        .with_weights("2")
        .join(&planes, B)
        .await;
    let versions = async || {
        let model = get(server.address, "/v1/models/m").await.json();
        model["versions"].as_array().unwrap().len()
    };
    while versions().await < 2 {}
    // Each has one of two workers: that one of them gets none of so many is out of the question.
    for _ in 0..64 {
        text(&server, "m").await;
    }
    assert!(!old.requests().is_empty() && !new.requests().is_empty());

    drop(leaving.leave().await);
    server
        .until_metric("forebay_frontend_workers{model=\"m\",state=\"ready\"} 1")
        .await;
    let before = old.requests().len();
    for _ in 0..16 {
        assert_eq!(text(&server, "m").await, "new");
    }
    assert_eq!(old.requests().len(), before);
}

/// By version of a model, in the order of their digests, its part of the new requests.
async fn shares(server: &Server, model: &str) -> Vec<Value> {
    let path = format!("/v1/models/{model}");
    let model = get(server.address, &path).await.json();
    let versions = model["versions"].as_array().unwrap().iter();
    versions.map(|version| version["share"].clone()).collect()
}

/// Publishes cards in a worker's reports.
async fn reports(planes: &Planes, worker: WorkerId) -> impl FnMut(&WorkerCard) + use<> {
    let topic = report_topic(&engine_endpoint(NAMESPACE).unwrap(), worker);
    let mut reports = planes.events.publisher(&topic, worker).await.unwrap();
    move |card| {
        let card = worker::WorkerCard::decode(&card.encode()[..]).unwrap();
        let report = worker::WorkerReport {
            load: Some(Load::default()),
            card: Some(card),
        };
        reports.publish(report.encode_to_vec().into());
    }
}

#[tokio::test]
async fn versions_share_the_requests_by_weights_that_change_while_they_serve() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let engines = [ScriptedEngine::saying("0"), ScriptedEngine::saying("1")];
    let mut joining = [("1", 3.0), ("2", 1.0)].map(|(weights, weight)| {
        let mut joining = Joining::new("m", &engines[0]).with_weights(weights);
        joining.card.weight = weight;
        joining
    });
    // In the order of the list.
    joining.sort_by_key(|joining| joining.card.digest().to_string());
    let [heavy, light] = match joining[0].card.weight {
        3.0 => [0, 1],
        _ => [1, 0],
    };
    let mut cards = joining.each_ref().map(|joining| joining.card.clone());
    let mut joined = Vec::new();
    for ((joining, engine), worker) in joining.into_iter().zip(&engines).zip([A, B]) {
        joined.push(joining.with_engine(engine).join(&planes, worker).await);
    }
    let mut expected = [json!(0.75), json!(0.25)];
    if heavy == 1 {
        expected.reverse();
    }
    until_listed(&server, &["m"]).await;
    while shares(&server, "m").await != expected {}
    for _ in 0..64 {
        text(&server, "m").await;
    }
    let asked = engines.each_ref().map(|engine| engine.requests().len());
    assert!((14..=18).contains(&asked[light]), "{asked:?}");

    // The worker says so itself; discovery has an older card, and tells it anew.
    let worker = [A, B][heavy];
    let mut report = reports(&planes, worker).await;
    cards[heavy].aliases.push("x".into());
    (cards[heavy].weight, cards[heavy].revision) = (0.0, 2);
    report(&cards[heavy]);
    until_listed(&server, &["m", "x"]).await;
    let mut expected = [json!(0.0), json!(1.0)];
    if heavy == 1 {
        expected.reverse();
    }
    assert_eq!(shares(&server, "x").await, expected);
    let stale = Joining::new("m", &engines[heavy]);
    let stale = stale.with_card(WorkerCard {
        weight: 9.0,
        revision: 1,
        ..cards[heavy].clone()
    });
    let _old = stale
        .register(&planes, worker, joined[heavy].address())
        .await;
    // So is one that says that it is of another version.
    let mut other = cards[heavy].clone();
    other.weights.push('x');
    other.revision = 3;
    report(&other);
    for _ in 0..16 {
        assert_eq!(text(&server, "m").await, light.to_string());
    }
    assert_eq!(shares(&server, "m").await, expected);

    // And discovery may be the first to know.
    let newest = stale.with_card(WorkerCard {
        weight: 1.0,
        revision: 4,
        ..cards[heavy].clone()
    });
    let _newest = newest
        .register(&planes, worker, joined[heavy].address())
        .await;
    while shares(&server, "m").await != [json!(0.5), json!(0.5)] {}
}

#[tokio::test]
async fn what_a_worker_said_counts_when_it_is_back_though_discovery_has_not_heard() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let engine = ScriptedEngine::saying("x");
    let heavy = || {
        let mut heavy = Joining::new("m", &engine).with_weights("1");
        heavy.card.weight = 3.0;
        heavy
    };
    let joined = heavy().join(&planes, A).await;
    let light = Joining::new("m", &engine).with_weights("2");
    let _light = light.join(&planes, B).await;
    let sorted = async || {
        let mut shares = shares(&server, "m").await;
        shares.sort_by(|a, b| a.as_f64().unwrap().total_cmp(&b.as_f64().unwrap()));
        shares
    };
    let [without, unequal, equal] =
        [[0.0, 1.0], [0.25, 0.75], [0.5, 0.5]].map(|s| s.map(Value::from));
    until_listed(&server, &["m"]).await;
    while sorted().await != unequal {}

    let mut report = reports(&planes, A).await;
    let changed = WorkerCard {
        weight: 1.0,
        revision: 1,
        ..heavy().card
    };
    while sorted().await != equal {
        text(&server, "m").await;
        report(&changed);
    }
    // It says nothing more.
    joined.set_paused(true);
    while sorted().await != without {}
    joined.set_paused(false);
    while sorted().await == without {}
    assert_eq!(sorted().await, equal);

    // A new one of its name begins anew.
    let left = joined.leave().await;
    while sorted().await != without {}
    drop(left);
    let _new = heavy().join(&planes, A).await;
    while sorted().await == without {}
    assert_eq!(sorted().await, unequal);
}

#[tokio::test]
async fn an_answer_goes_on_within_its_version() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    // Dies after two letters; says the rest, if it is to go on.
    let gate = Arc::new(Semaphore::new(0));
    let dying = {
        let gate = gate.clone();
        ScriptedEngine::new(move |request| {
            let mut turns = say(request, "abc");
            turns.truncate(2);
            turns.push(Turn::Wait(gate.clone()));
            let death = Error::new(ErrorClass::Unavailable, "crashed", "the worker is gone");
            turns.push(Turn::Fail(death));
            Ok(turns)
        })
    };
    let rest =
        ScriptedEngine::new(|request| Ok(say(request, &"abc"[request.emitted_token_ids.len()..])));
    let other = ScriptedEngine::saying("xyz");
    let first = Joining::new("m", &dying)
        .with_weights("1")
        .join(&planes, A)
        .await;
    until_listed(&server, &["m"]).await;
    let body = json!({"model": "m", "prompt": "x", "stream": true});
    let mut running = open_post(server.address, PATH, &body).await;
    read_until(&mut running, "\"text\":\"a\"").await;

    let _other = Joining::new("m", &other)
        .with_weights("2")
        .join(&planes, B)
        .await;
    server
        .until_metric("forebay_frontend_workers{model=\"m\",state=\"ready\"} 2")
        .await;
    gate.add_permits(1);
    server.until_metric("forebay_frontend_waiting 1").await;
    drop(first);
    let _second = Joining::new("m", &rest)
        .with_weights("1")
        .join(&planes, C)
        .await;
    let answer = read_until(&mut running, "[DONE]").await;
    assert!(
        answer.contains("\"text\":\"b\"") && answer.contains("\"text\":\"c\""),
        "{answer}"
    );
    assert!(other.requests().is_empty(), "it has other weights");
}

#[tokio::test]
async fn a_worker_that_gives_another_tokenizer_than_it_names_is_told_of() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let engine = ScriptedEngine::saying("ok");
    let liar = Joining::new("m", &engine).lying().join(&planes, A).await;
    until_amiss(&server, "do not give what their cards name").await;
    assert_eq!(listed(&server).await, [""; 0]);
    assert_eq!(get(server.address, "/live").await.status, 200);

    // Another one of the same version has it, and then both are of use.
    let _honest = Joining::new("m", &engine).join(&planes, B).await;
    until_listed(&server, &["m"]).await;
    server
        .until_metric("forebay_frontend_workers{model=\"m\",state=\"ready\"} 2")
        .await;
    assert_eq!(amiss(&server).await, None);
    drop(liar);
    assert_eq!(text(&server, "m").await, "ok");
}

#[tokio::test]
async fn a_worker_that_does_not_answer_keeps_no_model_from_being_served() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let engine = ScriptedEngine::saying("ok");
    let _busy = Joining::new("m", &engine).busy().join(&planes, A).await;
    until_amiss(&server, "its workers do not answer").await;
    let _well = Joining::new("m", &engine).join(&planes, B).await;
    until_listed(&server, &["m"]).await;
    assert_eq!(amiss(&server).await, None);
}

#[tokio::test]
async fn what_cannot_be_used_is_told_of_while_it_is_there() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let engine = ScriptedEngine::saying("ok");
    let broken = Joining::new("broken", &engine).with_template("{% if %}");
    let broken = broken.join(&planes, A).await;
    until_amiss(&server, "its template cannot be used").await;
    let mut without = Joining::new("without", &engine);
    without.card.tokenizer = None;
    let _without = without.join(&planes, B).await;
    until_amiss(&server, "its workers name no tokenizer").await;
    // Others are served.
    let _well = Joining::new("well", &engine).join(&planes, C).await;
    until_listed(&server, &["well"]).await;
    assert_eq!(get(server.address, "/ready").await.status, 200);
    drop(broken.leave().await);
    while amiss(&server).await.unwrap().contains("broken") {}
}

#[tokio::test]
async fn workers_that_do_a_part_only_are_left_out() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let engine = ScriptedEngine::saying("ok");
    let mut part = Joining::new("part", &engine);
    part.card.role = WorkerRole::Prefill;
    let _part = part.join(&planes, A).await;
    let _whole = Joining::new("whole", &engine).join(&planes, B).await;
    until_listed(&server, &["whole"]).await;
}

#[tokio::test]
async fn a_model_s_own_name_is_its_own() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let [a, b, c] = ["a", "b", "c"].map(ScriptedEngine::saying);
    // Whoever comes first: a name wins over an alias, and the first model's alias over others'.
    let _c = Joining::new("c", &c).with_alias("a").with_alias("x");
    let _c = _c.join(&planes, C).await;
    until_listed(&server, &["a", "c", "x"]).await;
    assert_eq!(text(&server, "a").await, "c");
    let _b = Joining::new("b", &b).with_alias("x").join(&planes, B).await;
    let a_joined = Joining::new("a", &a).join(&planes, A).await;
    until_listed(&server, &["a", "b", "c", "x"]).await;
    assert_eq!(text(&server, "a").await, "a");
    assert_eq!(text(&server, "x").await, "b");
    drop(a_joined);
}

#[tokio::test]
async fn a_card_that_changes_is_taken_anew() {
    let planes = Planes::in_process();
    let server = Server::following(&planes, patient()).await;
    let engine = ScriptedEngine::saying("ok");
    let first = Joining::new("m", &engine).with_alias("x");
    let first = first.join(&planes, A).await;
    until_listed(&server, &["m", "x"]).await;
    // Another life of the same worker.
    drop(first);
    let _second = Joining::new("m", &engine)
        .with_alias("y")
        .join(&planes, A)
        .await;
    until_listed(&server, &["m", "y"]).await;
    assert_eq!(text(&server, "y").await, "ok");
}
