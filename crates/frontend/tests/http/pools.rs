//! Requests over workers that come, go, refuse and die.

use std::sync::Arc;
use std::time::Duration;

use forebay_engine::remote::{EngineHandler, WorkerCard, engine_endpoint};
use forebay_engine::{Engine, Error, ErrorClass};
use forebay_frontend::{FrontendConfig, WorkerPool};
use forebay_router::{Mode, RouterConfig};
use forebay_runtime::{Instance, Planes, Registration, Served};
use forebay_tokens::{BlockSize, CacheGroup, KvEvent, RoutingHash, RoutingSeed, Tier, WorkerId};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::client::{Response, get, open_post, post, read_until};
use crate::engine::{ScriptedEngine, Turn, opening, output, say};
use crate::server::{Server, until};

const PATH: &str = "/v1/completions";
const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);

fn pool() -> WorkerPool {
    pool_with(Mode::Kv)
}

fn pool_with(mode: Mode) -> WorkerPool {
    let config = RouterConfig {
        mode,
        ..RouterConfig::default()
    };
    let model = ScriptedEngine::saying("").info().clone();
    WorkerPool::new(model, &config).unwrap()
}

/// A server over these workers: A, B, ...
async fn serve(engines: &[&Arc<ScriptedEngine>], mode: Mode) -> (Server, WorkerPool) {
    let pool = pool_with(mode);
    for (id, engine) in (1..).zip(engines) {
        pool.add(WorkerId(id), (*engine).clone()).unwrap();
    }
    let server = Server::of_pool(&pool, FrontendConfig::default()).await;
    (server, pool)
}

fn refusing(class: ErrorClass, seconds: u64) -> Arc<ScriptedEngine> {
    ScriptedEngine::new(move |_| {
        let error = Error::new(class, "scripted", "not now");
        Err(error.with_retry_after(Duration::from_secs(seconds)))
    })
}

async fn complete(server: &Server, prompt: &str) -> Response {
    let body = json!({"model": "base", "prompt": prompt});
    post(server.address, PATH, &body).await
}

fn text(response: &Response) -> Value {
    response.json()["choices"][0]["text"].clone()
}

fn booked(pool: &WorkerPool) -> u64 {
    pool.workers()
        .iter()
        .map(|worker| worker.load.requests)
        .sum()
}

#[tokio::test]
async fn a_prompt_goes_where_its_prefix_is() {
    let engines = [1, 2].map(|_| ScriptedEngine::saying("ok"));
    let (server, pool) = serve(&[&engines[0], &engines[1]], Mode::Kv).await;
    let prompt = "a prompt that is longer than one block of sixteen tokens";
    let tokens: Vec<u32> = prompt.bytes().map(u32::from).collect();
    let block = RoutingSeed::default().block_hash(&tokens[..16], &[]);
    let stored = KvEvent::Stored {
        tier: Tier::G1,
        group: CacheGroup::default(),
        parent: None,
        blocks: vec![RoutingHash::root(block)],
    };
    pool.apply(B.into(), &[stored]);
    for _ in 0..4 {
        assert_eq!(complete(&server, prompt).await.status, 200);
    }
    assert_eq!(engines.each_ref().map(|e| e.requests().len()), [0, 4]);
    // Under another salt it is another prefix, and the load decides.
    for _ in 0..16 {
        let body = json!({"model": "base", "prompt": prompt, "cache_salt": "s"});
        assert_eq!(post(server.address, PATH, &body).await.status, 200);
    }
    assert_ne!(engines[0].requests().len(), 0);
    assert_eq!(booked(&pool), 0);
}

#[tokio::test]
async fn an_answer_goes_on_where_its_worker_died() {
    // Each says one more letter of the alphabet than it was given, twice; then it dies.
    let dying = || {
        ScriptedEngine::new(|request| {
            let from = request.emitted_token_ids.len() as u32;
            let letter = |n| Turn::Output(output(request, &[u32::from(b'a') + n]));
            let death = Error::new(ErrorClass::Unavailable, "crashed", "the worker is gone");
            let begin = Turn::Output(opening(request, 0));
            Ok(vec![
                begin,
                letter(from),
                letter(from + 1),
                Turn::Fail(death),
            ])
        })
    };
    let whole = ScriptedEngine::new(|request| {
        let alphabet = "abcdefghijklmnopqrstuvwxyz";
        Ok(say(request, &alphabet[request.emitted_token_ids.len()..]))
    });
    let (first, second) = (dying(), dying());
    let (server, pool) = serve(&[&first, &second, &whole], Mode::RoundRobin).await;
    let body = json!({"model": "base", "prompt": "x", "max_tokens": 26, "stream": true});
    let response = post(server.address, PATH, &body).await;
    let events = response.events();
    assert_eq!(events.last(), Some(&"[DONE]"), "{}", response.body);
    let texts = events[..events.len() - 1].iter().map(|event| {
        let event: Value = serde_json::from_str(event).unwrap();
        event["choices"][0]["text"].as_str().unwrap().to_owned()
    });
    let answer: String = texts.collect();
    assert_eq!(answer, "abcdefghijklmnopqrstuvwxyz");
    assert_eq!(second.requests()[0].emitted_token_ids, [97, 98]);
    assert_eq!(whole.requests()[0].emitted_token_ids, [97, 98, 99, 100]);
    assert_eq!(whole.requests()[0].prompt_token_ids, [120]);
    assert!(server.has_metric("forebay_frontend_retries_total{model=\"base\"} 2"));
    assert_eq!(booked(&pool), 0);
}

/// Says the next letter of the alphabet, and is gone then.
fn leaving(reason: &'static str) -> Arc<ScriptedEngine> {
    ScriptedEngine::new(move |request| {
        let next = u32::from(b'a') + request.emitted_token_ids.len() as u32;
        let gone = Error::new(ErrorClass::Unavailable, reason, "the worker is gone");
        Ok(vec![
            Turn::Output(opening(request, 0)),
            Turn::Output(output(request, &[next])),
            Turn::Fail(gone),
        ])
    })
}

#[tokio::test]
async fn a_request_that_kills_workers_does_not_kill_all_of_them() {
    let dying = leaving("worker_lost");
    let (server, pool) = serve(&[&dying; 9], Mode::RoundRobin).await;
    let body = json!({"model": "base", "prompt": "x", "max_tokens": 9});
    let response = post(server.address, PATH, &body).await;
    response.assert_error(503, "worker_lost", None);
    assert_eq!(dying.requests().len(), 3);
    assert_eq!(booked(&pool), 0);
}

#[tokio::test]
async fn an_answer_moves_as_often_as_workers_are_replaced() {
    let leaving = leaving("worker_stopped");
    let (server, pool) = serve(&[&leaving; 9], Mode::RoundRobin).await;
    let body = json!({"model": "base", "prompt": "x", "max_tokens": 9});
    let response = post(server.address, PATH, &body).await;
    assert_eq!(text(&response), "abcdefghi", "{}", response.body);
    assert_eq!(booked(&pool), 0);
}

#[tokio::test]
async fn workers_that_take_none_are_passed_over_however_many() {
    for reason in ["worker_paused", "worker_stopped"] {
        let away = ScriptedEngine::new(move |_| {
            let message = "no requests at present";
            Err(Error::new(ErrorClass::Unavailable, reason, message))
        });
        let well = ScriptedEngine::saying("ok");
        let engines = [&away, &away, &away, &away, &away, &well];
        let (server, _pool) = serve(&engines, Mode::RoundRobin).await;
        for _ in 0..6 {
            let response = complete(&server, "x").await;
            assert_eq!(text(&response), "ok", "{}", response.body);
        }
        assert!(
            away.requests().len() > 6,
            "{reason}: nobody was passed over"
        );
    }
}

#[tokio::test]
async fn a_request_that_crosses_a_pause_waits_for_its_end() {
    let paused = ScriptedEngine::new(|_| {
        let message = "the worker is paused";
        Err(Error::new(
            ErrorClass::Unavailable,
            "worker_paused",
            message,
        ))
    });
    let (server, pool) = serve(&[&paused], Mode::RoundRobin).await;
    let address = server.address;
    let body = json!({"model": "base", "prompt": "x"});
    let asking = tokio::spawn(async move { post(address, PATH, &body).await });
    until(|| server.has_metric("forebay_frontend_waiting 1")).await;
    pool.remove(A);
    pool.add(A, ScriptedEngine::saying("ok")).unwrap();
    assert_eq!(text(&asking.await.unwrap()), "ok");
}

#[tokio::test]
async fn who_refuses_is_not_asked_again() {
    let busy = refusing(ErrorClass::CapacityExhausted, 1);
    let gone = refusing(ErrorClass::Unavailable, 1);
    let well = ScriptedEngine::saying("ok");
    let (server, _pool) = serve(&[&busy, &gone, &well], Mode::RoundRobin).await;
    for _ in 0..6 {
        let response = complete(&server, "x").await;
        assert_eq!(text(&response), "ok", "{}", response.body);
    }
    assert_eq!(well.requests().len(), 6);
}

#[tokio::test]
async fn all_busy_is_told_at_once_with_the_soonest_time() {
    let busy = [7, 3, 5].map(|seconds| refusing(ErrorClass::CapacityExhausted, seconds));
    let (server, pool) = serve(&[&busy[0], &busy[1], &busy[2]], Mode::RoundRobin).await;
    let response = complete(&server, "x").await;
    response.assert_error(503, "scripted", None);
    assert_eq!(response.header("retry-after"), Some("3"));
    assert_eq!(booked(&pool), 0);

    // With fewer workers than attempts, too.
    let (server, _pool) = serve(&[&busy[0]], Mode::RoundRobin).await;
    let response = complete(&server, "x").await;
    response.assert_error(503, "scripted", None);
    assert_eq!(response.header("retry-after"), Some("7"));
    assert!(server.has_metric("forebay_frontend_retries_total{model=\"base\"} 0"));
}

#[tokio::test]
async fn what_the_request_is_to_blame_for_is_not_tried_elsewhere() {
    let strict = [1, 2].map(|_| refusing(ErrorClass::InvalidRequest, 1));
    let (server, _pool) = serve(&[&strict[0], &strict[1]], Mode::RoundRobin).await;
    complete(&server, "x")
        .await
        .assert_error(400, "scripted", None);
    let asked: usize = strict.iter().map(|engine| engine.requests().len()).sum();
    assert_eq!(asked, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_worker_requests_wait_and_then_are_refused() {
    let pool = pool();
    let config = FrontendConfig {
        worker_wait_seconds: 2.5,
        ..FrontendConfig::default()
    };
    let server = Server::of_pool(&pool, config).await;
    assert_eq!(get(server.address, "/ready").await.status, 503);
    let response = complete(&server, "x").await;
    response.assert_error(503, "no_worker_ready", None);
    assert_eq!(response.header("retry-after"), Some("3"));
    assert_eq!(get(server.address, "/live").await.status, 200);
}

#[tokio::test]
async fn a_waiting_request_is_answered_by_the_worker_that_comes() {
    let pool = pool();
    let config = FrontendConfig {
        worker_wait_seconds: 600.0,
        max_waiting_requests: 1,
        ..FrontendConfig::default()
    };
    let server = Server::of_pool(&pool, config).await;
    // It is one request, however many choices it has.
    let body = json!({"model": "base", "prompt": ["x", "y"], "n": 2});
    let mut waiting = open_post(server.address, PATH, &body).await;
    server.until_metric("forebay_frontend_waiting 1").await;
    let response = complete(&server, "x").await;
    response.assert_error(503, "too_many_waiting", None);
    assert!(response.header("retry-after").is_some());

    pool.add(A, ScriptedEngine::saying("ok")).unwrap();
    let answer = read_until(&mut waiting, "\"text\":\"ok\"").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.until_metric("forebay_frontend_waiting 0").await;
    assert_eq!(get(server.address, "/ready").await.status, 200);
    assert!(pool.remove(A));
    let ready = get(server.address, "/ready").await;
    assert_eq!(
        ready.json()["conditions"][0]["reason"],
        "no worker for base"
    );
}

#[tokio::test]
async fn a_client_that_leaves_waits_for_no_worker() {
    let pool = pool();
    let server = Server::of_pool(&pool, FrontendConfig::default()).await;
    let waiting = open_post(
        server.address,
        PATH,
        &json!({"model": "base", "prompt": "x"}),
    )
    .await;
    server.until_metric("forebay_frontend_waiting 1").await;
    drop(waiting);
    server.until_metric("forebay_frontend_waiting 0").await;
}

#[tokio::test]
async fn a_worker_that_comes_back_is_asked_again() {
    let pool = pool();
    let crashed = || refusing(ErrorClass::Unavailable, 1);
    pool.add(A, crashed()).unwrap();
    let server = Server::of_pool(&pool, FrontendConfig::default()).await;
    let mut waiting = open_post(
        server.address,
        PATH,
        &json!({"model": "base", "prompt": "x"}),
    )
    .await;
    server.until_metric("forebay_frontend_waiting 1").await;
    pool.remove(A);
    pool.add(A, ScriptedEngine::saying("ok")).unwrap();
    read_until(&mut waiting, "\"text\":\"ok\"").await;
}

#[tokio::test]
async fn a_worker_that_drains_finishes_and_takes_no_more() {
    let gate = Arc::new(Semaphore::new(0));
    let slow = {
        let gate = gate.clone();
        ScriptedEngine::new(move |request| {
            let mut turns = say(request, "ok");
            turns.insert(1, Turn::Wait(gate.clone()));
            Ok(turns)
        })
    };
    let other = ScriptedEngine::saying("other");
    let pool = pool();
    pool.add(A, slow.clone()).unwrap();
    let server = Server::of_pool(&pool, FrontendConfig::default()).await;
    let body = json!({"model": "base", "prompt": "x", "stream": true});
    let mut running = open_post(server.address, PATH, &body).await;
    slow.until_live(1).await;
    assert!(pool.drain(A));
    pool.add(B, other).unwrap();
    for _ in 0..4 {
        assert_eq!(text(&complete(&server, "x").await), "other");
    }
    pool.remove(A);
    gate.add_permits(1);
    let answer = read_until(&mut running, "[DONE]").await;
    assert!(answer.contains("\"text\":\"o\""), "{answer}");
    assert!(!pool.drain(A));
}

#[tokio::test]
async fn what_is_booked_ends_with_its_request() {
    let never = Arc::new(Semaphore::new(0));
    let slow = {
        let never = never.clone();
        ScriptedEngine::new(move |request| {
            let begin = Turn::Output(opening(request, 0));
            let tokens = Turn::Output(output(request, &[97; 40]));
            Ok(vec![begin, tokens, Turn::Wait(never.clone())])
        })
    };
    let (server, pool) = serve(&[&slow], Mode::Kv).await;
    let body = json!({"model": "base", "prompt": ["x", "y"], "n": 2, "max_tokens": 90,
                      "stream": true});
    let mut running = open_post(server.address, PATH, &body).await;
    for _ in 0..4 {
        read_until(&mut running, "aaaa").await;
    }
    slow.until_live(4).await;
    let load = pool.workers()[0].load;
    assert_eq!(
        (load.requests, load.prefills, load.prefill_tokens),
        (4, 0, 0)
    );
    // One token of prompt and forty of answer are three blocks.
    assert_eq!(load.context_blocks, 4 * 3);
    drop(running);
    slow.until_live(0).await;
    assert_eq!(pool.workers()[0].load, Default::default());
}

#[tokio::test]
async fn a_worker_of_another_model_is_refused() {
    let mut model = ScriptedEngine::saying("").info().clone();
    model.block_size = BlockSize::new(32).unwrap();
    let pool = WorkerPool::new(model, &RouterConfig::default()).unwrap();
    let error = pool.add(A, ScriptedEngine::saying("")).unwrap_err();
    assert!(error.to_string().contains("block size"), "{error}");
    let direct = RouterConfig {
        mode: Mode::Direct,
        ..RouterConfig::default()
    };
    let error = WorkerPool::new(pool.model().clone(), &direct).unwrap_err();
    assert!(error.to_string().contains("router.mode"), "{error}");
}

/// Serves an engine behind planes, until it is dropped.
async fn join(
    planes: &Planes,
    worker: WorkerId,
    model: &str,
    engine: Arc<ScriptedEngine>,
) -> Joined {
    let endpoint = engine_endpoint("test").unwrap();
    let card = WorkerCard::new(model, engine.info().clone());
    let handler = Arc::new(EngineHandler::new(engine));
    let served = planes
        .requests
        .serve(&endpoint, worker, handler)
        .await
        .unwrap();
    let instance = Instance {
        endpoint,
        worker,
        address: served.address().to_owned(),
        card: card.encode(),
    };
    let registration = planes.discovery.register(instance).await.unwrap();
    (registration, served)
}

type Joined = (Box<dyn Registration>, Box<dyn Served>);

#[tokio::test]
async fn a_pool_follows_the_workers_of_its_model() {
    let planes = Planes::in_process();
    let _other = join(&planes, WorkerId(9), "other", ScriptedEngine::saying("no")).await;
    let (registration, served) = join(&planes, A, "base", ScriptedEngine::saying("ok")).await;
    let pool = pool();
    let server = Server::of_pool(&pool, FrontendConfig::default()).await;
    let endpoint = engine_endpoint("test").unwrap();
    let _task = pool.follow(&planes, endpoint, "base", &server.process);
    assert_eq!(text(&complete(&server, "x").await), "ok");
    assert_eq!(pool.workers().len(), 1);

    registration.deregister().await.unwrap();
    server
        .until_metric("forebay_frontend_workers{model=\"base\",state=\"ready\"} 0")
        .await;
    drop(served);
    let _again = join(&planes, A, "base", ScriptedEngine::saying("again")).await;
    assert_eq!(text(&complete(&server, "x").await), "again");
}

/// Whoever sent it, which is more than the frontend knows of itself.
#[tokio::test]
async fn what_workers_report_is_told_for_each_model() {
    let planes = Planes::in_process();
    let never = Arc::new(Semaphore::new(0));
    let stuck = ScriptedEngine::new(move |_| Ok(vec![Turn::Wait(never.clone())]));
    let _joined = join(&planes, A, "base", stuck.clone()).await;
    let idle = ScriptedEngine::saying("");
    let _idle = join(&planes, B, "base", idle.clone()).await;
    let (pool, blocks) = (pool(), stuck.info().kv_blocks);
    let server = Server::of_pool(&pool, FrontendConfig::default()).await;
    let endpoint = engine_endpoint("test").unwrap();
    let _task = pool.follow(&planes, endpoint, "base", &server.process);
    let reported =
        |what, number| format!("forebay_frontend_worker_{what}{{model=\"base\"}} {number}");
    server
        .until_metric(&reported("kv_blocks", 2 * blocks))
        .await;
    let _others = [
        stuck.generate(Default::default()).await.unwrap(),
        stuck.generate(Default::default()).await.unwrap(),
    ];
    for (what, number) in [
        ("running_requests", 2),
        ("waiting_requests", 20),
        ("kv_active_blocks", 4),
        ("pending_prefill_tokens", 60),
    ] {
        server.until_metric(&reported(what, number)).await;
    }
    assert_eq!(booked(&pool), 0);
    let reported = pool.workers().into_iter().map(|worker| worker.reported);
    let running = reported.map(|load| load.running_requests);
    assert_eq!(running.collect::<Vec<_>>(), [2, 0]);
}

#[tokio::test]
async fn a_worker_that_is_cut_off_hands_over() {
    let planes = Planes::in_process();
    let never = Arc::new(Semaphore::new(0));
    let stuck = ScriptedEngine::new(move |request| {
        let mut turns = say(request, "ab");
        turns.truncate(2);
        turns.push(Turn::Wait(never.clone()));
        Ok(turns)
    });
    let (registration, served) = join(&planes, A, "base", stuck.clone()).await;
    let pool = pool();
    let server = Server::of_pool(&pool, FrontendConfig::default()).await;
    let endpoint = engine_endpoint("test").unwrap();
    let _task = pool.follow(&planes, endpoint, "base", &server.process);
    let body = json!({"model": "base", "prompt": "x", "stream": true});
    let mut running = open_post(server.address, PATH, &body).await;
    read_until(&mut running, "\"text\":\"a\"").await;
    // It vanishes with its stream; another one takes over.
    drop((registration, served));
    let rest =
        ScriptedEngine::new(|request| Ok(say(request, &"abc"[request.emitted_token_ids.len()..])));
    let _other = join(&planes, B, "base", rest).await;
    let answer = read_until(&mut running, "[DONE]").await;
    assert!(
        answer.contains("\"text\":\"b\"") && answer.contains("\"text\":\"c\""),
        "{answer}"
    );
    stuck.until_live(0).await;
}
