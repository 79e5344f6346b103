//! Requests that go over to another version of their model.

use std::sync::Arc;

use forebay_engine::{Error, ErrorClass, GenerateRequest};
use forebay_frontend::FrontendConfig;
use forebay_runtime::Planes;
use forebay_tokens::WorkerId;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::client::{Response, get, open_post, parse, read_until};
use crate::deployment::{Joined, Joining};
use crate::engine::{ScriptedEngine, Turn, opening, output};
use crate::server::{Server, until};

const OLD: WorkerId = WorkerId(1);
const NEW: WorkerId = WorkerId(2);
const OLD_AGAIN: WorkerId = WorkerId(3);

const CHAT: &str = "/v1/chat/completions";

/// Requests wait for workers for as long as a test runs.
fn patient() -> FrontendConfig {
    FrontendConfig {
        worker_wait_seconds: 600.0,
        ..FrontendConfig::default()
    }
}

fn crashed() -> Error {
    Error::new(ErrorClass::Unavailable, "crashed", "the worker is gone")
}

/// The old version of a model, with a request that its only worker has taken. The worker dies once
/// it is told to, after what its script says.
struct Old {
    planes: Planes,
    server: Server,
    worker: Joined,
    gate: Arc<Semaphore>,
    request: TcpStream,
    asked: Vec<GenerateRequest>,
}

impl Old {
    /// The worker says nothing of an answer, only that it has taken the request.
    async fn silent(config: FrontendConfig, path: &str, body: &Value) -> Self {
        Self::saying(config, path, body, &[]).await
    }

    /// The worker says a letter of these choices.
    async fn saying(
        config: FrontendConfig,
        path: &str,
        body: &Value,
        begun: &'static [u32],
    ) -> Self {
        let planes = Planes::in_process();
        let server = Server::following(&planes, config).await;
        let gate = Arc::new(Semaphore::new(0));
        let engine = {
            let gate = gate.clone();
            ScriptedEngine::new(move |request| {
                let mut turns = vec![Turn::Output(opening(request, 0))];
                if begun.contains(&request.choice_index) {
                    turns.push(Turn::Output(output(request, &[u32::from(b'a')])));
                }
                turns.extend([Turn::Wait(gate.clone()), Turn::Fail(crashed())]);
                Ok(turns)
            })
        };
        let worker = Joining::new("m", &engine).with_weights("old");
        let worker = worker.join(&planes, OLD).await;
        while get(server.address, "/v1/models/m").await.status != 200 {}
        let request = open_post(server.address, path, body).await;
        let choices = body["n"].as_u64().unwrap_or(1);
        engine.until_live(choices as usize).await;
        Self {
            planes,
            server,
            worker,
            gate,
            request,
            asked: engine.requests(),
        }
    }

    /// Another version comes.
    async fn upgrade(&self, joining: Joining) -> Joined {
        let joined = joining.with_weights("new").join(&self.planes, NEW).await;
        self.server
            .until_metric("forebay_frontend_workers{model=\"m\",state=\"ready\"} 2")
            .await;
        joined
    }

    /// The worker dies, and whatever it does; gives the request, and what serves it.
    async fn die(self) -> (TcpStream, Server, Planes) {
        let served = self.worker.leave().await;
        self.gate.add_permits(8);
        drop(served);
        (self.request, self.server, self.planes)
    }
}

/// A worker of the new version, whose template takes the first letter.
fn new_worker(engine: &Arc<ScriptedEngine>) -> Joining {
    Joining::new("m", engine).with_template("{{ messages[0].content[:1] }}")
}

fn chat(more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    body
}

async fn answer(mut request: TcpStream) -> Response {
    let mut bytes = Vec::new();
    request.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes)
}

#[tokio::test]
async fn what_has_no_token_yet_is_prepared_for_another_version_and_answered_there() {
    for stream in [false, true] {
        let old = Old::silent(patient(), CHAT, &chat(json!({"stream": stream}))).await;
        let new = ScriptedEngine::saying("new");
        let _new = old.upgrade(new_worker(&new)).await;
        let asked = old.asked.clone();
        let (request, server, _planes) = old.die().await;
        let answer = answer(request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(!answer.body.contains("error"), "{}", answer.body);
        let text = match stream {
            false => answer.json()["choices"][0]["message"]["content"].clone(),
            true => {
                assert_eq!(answer.events().last(), Some(&"[DONE]"));
                let events = answer
                    .events()
                    .into_iter()
                    .filter(|event| *event != "[DONE]");
                let events = events.map(|event| serde_json::from_str::<Value>(event).unwrap());
                let content = |event: Value| {
                    let content = event["choices"][0]["delta"]["content"].as_str();
                    content.unwrap_or_default().to_owned()
                };
                events.map(content).collect::<String>().into()
            }
        };
        assert_eq!(text, "new");
        assert_eq!(asked[0].prompt_token_ids, [72, 105]);
        let asked = new.requests();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].prompt_token_ids, [72], "by its own template");
        server.until_metric("forebay_frontend_waiting 0").await;
    }
}

#[tokio::test]
async fn what_waits_for_its_version_goes_over_once_another_one_comes() {
    let old = Old::silent(patient(), CHAT, &chat(json!({}))).await;
    let (request, server, planes) = old.die().await;
    server.until_metric("forebay_frontend_waiting 1").await;
    let new = ScriptedEngine::saying("new");
    let _new = new_worker(&new)
        .with_weights("new")
        .join(&planes, NEW)
        .await;
    let answer = answer(request).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "new");
    assert_eq!(new.requests()[0].prompt_token_ids, [72]);
}

#[tokio::test]
async fn where_nobody_may_wait_any_more_it_goes_over_as_well() {
    let config = FrontendConfig {
        max_waiting_requests: 0,
        ..patient()
    };
    let old = Old::silent(config, CHAT, &chat(json!({}))).await;
    let new = ScriptedEngine::saying("new");
    let _new = old.upgrade(new_worker(&new)).await;
    let (request, _server, _planes) = old.die().await;
    let answer = answer(request).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "new");
}

#[tokio::test]
async fn what_the_other_version_does_not_take_is_refused_as_it_refuses() {
    let old = Old::silent(patient(), CHAT, &chat(json!({"stream": true}))).await;
    let new = ScriptedEngine::saying("new");
    let mut joining = Joining::new("m", &new);
    joining.card.template = None;
    let _new = old.upgrade(joining).await;
    let (request, _server, _planes) = old.die().await;
    let answer = answer(request).await;
    answer.assert_error(400, "chat_template_missing", Some("messages"));
    assert!(new.requests().is_empty());
}

#[tokio::test]
async fn attempts_count_over_all_versions() {
    let config = FrontendConfig {
        max_attempts: 2,
        ..patient()
    };
    let old = Old::silent(config, CHAT, &chat(json!({}))).await;
    let dying = ScriptedEngine::new(|_| Err(crashed()));
    let _new = old.upgrade(new_worker(&dying)).await;
    let (request, _server, _planes) = old.die().await;
    answer(request).await.assert_error(503, "crashed", None);
    assert_eq!(dying.requests().len(), 1);
}

#[tokio::test]
async fn all_choices_go_over_together() {
    let body = json!({"model": "m", "prompt": "x", "n": 2});
    let old = Old::silent(patient(), "/v1/completions", &body).await;
    let new = ScriptedEngine::saying("new");
    let _new = old.upgrade(new_worker(&new)).await;
    let (request, _server, _planes) = old.die().await;
    let answer = answer(request).await.json();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    for choice in answer["choices"].as_array().unwrap() {
        assert_eq!(choice["text"], "new");
    }
    assert_eq!(new.requests().len(), 2);
    until(|| new.live() == 0).await;
}

#[tokio::test]
async fn where_one_choice_has_begun_all_stay() {
    let body = json!({"model": "m", "prompt": "x", "n": 2, "stream": true});
    let mut old = Old::saying(patient(), "/v1/completions", &body, &[0]).await;
    read_until(&mut old.request, "\"text\":\"a\"").await;
    let new = ScriptedEngine::saying("new");
    let _new = old.upgrade(new_worker(&new)).await;
    let (mut request, server, planes) = old.die().await;
    server.until_metric("forebay_frontend_waiting 1").await;
    let again = ScriptedEngine::saying("old");
    let joining = Joining::new("m", &again).with_weights("old");
    let _again = joining.join(&planes, OLD_AGAIN).await;
    read_until(&mut request, "[DONE]").await;
    assert!(new.requests().is_empty(), "one choice has begun elsewhere");
}
