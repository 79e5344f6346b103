use forebay_frontend::{Error, ModelRegistry, ServedModel};
use serde_json::json;

use crate::client::{get, post, send};
use crate::engine::ScriptedEngine;
use crate::server::Server;

#[tokio::test]
async fn models_are_listed_by_every_name() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let list = get(server.address, "/v1/models").await.json();
    assert_eq!(list["object"], "list");
    let models = list["data"].as_array().unwrap();
    let ids: Vec<_> = models.iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["base", "org/test", "test", "tuned"]);
    assert_eq!(models[0]["object"], "model");
    assert_eq!(models[0]["max_model_len"], 200);

    for path in ["/v1/models/org/test", "/v1/models/org%2Ftest"] {
        let model = get(server.address, path).await.json();
        assert_eq!(model["id"], "org/test", "{path}");
    }
    // An answer carries the name that was asked for.
    let body = json!({"model": "org/test", "prompt": "x"});
    let answer = post(server.address, "/v1/completions", &body).await.json();
    assert_eq!(answer["model"], "org/test");
    let counted = "forebay_frontend_requests_total{endpoint=\"completions\",model=\"test\",\
                   status=\"2xx\"} 1";
    assert!(server.has_metric(counted));
}

#[test]
fn names_are_unique() {
    let model = |name: &str| {
        let tokenizer = forebay_chat::Tokenizer::bytes();
        ServedModel::new(name, tokenizer, ScriptedEngine::saying("ok"))
    };
    let twice = ModelRegistry::new([model("a").with_alias("b"), model("b")]);
    assert!(matches!(twice.unwrap_err(), Error::DuplicateModelName(name) if name == "b"));
    let nameless = ModelRegistry::new([model("")]);
    assert!(matches!(nameless.unwrap_err(), Error::EmptyModelName));
}

#[tokio::test]
async fn health_is_that_of_the_process() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    for path in ["/health", "/live", "/ready"] {
        let response = get(server.address, path).await;
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.json()["ready"], true);
    }
    let _engine = server.process.health.condition("engine", "starting");
    let ready = get(server.address, "/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json()["conditions"][1],
        json!({"name": "engine", "ready": false, "reason": "starting"})
    );
    assert_eq!(get(server.address, "/live").await.status, 200);
    assert_eq!(get(server.address, "/health").await.status, 200);

    server.process.health.fail();
    assert_eq!(get(server.address, "/live").await.status, 503);
    assert_eq!(get(server.address, "/health").await.status, 503);
}

#[tokio::test]
async fn metrics_are_those_of_the_process() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let response = get(server.address, "/metrics").await;
    let content_type = response.header("content-type").unwrap();
    assert!(content_type.starts_with("application/openmetrics-text"));
    for line in [
        "forebay_frontend_connections 1",
        "forebay_frontend_connections_limit 16384",
        "# EOF",
    ] {
        assert!(
            response.body.lines().any(|found| found == line),
            "{line}\n{}",
            response.body
        );
    }
}

#[tokio::test]
async fn the_surface_describes_itself() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let response = get(server.address, "/openapi.json").await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    let document = response.json();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/health",
            "/live",
            "/metrics",
            "/openapi.json",
            "/ready",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/models",
            "/v1/models/{id}",
        ]
    );
    let schemas = &document["components"]["schemas"];
    for name in [
        "ChatCompletionRequest",
        "ChatMessage",
        "Completion",
        "ErrorBody",
        "ModelList",
    ] {
        assert!(schemas[name].is_object(), "{name}");
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_and_gets_one_if_it_has_none_that_can_be() {
    let engine = ScriptedEngine::saying("ok");
    let server = Server::start(engine.clone()).await;
    let body = json!({"model": "test", "prompt": "x"}).to_string();
    let with_id = |id: &str| {
        format!(
            "POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\n\
             x-request-id: {id}\r\n"
        )
    };
    let response = send(server.address, &with_id("abc-123"), &body).await;
    assert_eq!(response.header("x-request-id"), Some("abc-123"));
    let dispatched = &engine.requests()[0].request_id;
    assert!(dispatched.starts_with("abc-123-"), "{dispatched}");

    let again = send(server.address, &with_id("abc-123"), &body).await;
    assert_eq!(again.header("x-request-id"), Some("abc-123"));
    let [first, second] = &engine.requests()[..] else {
        panic!("two requests");
    };
    assert_ne!(
        first.request_id, second.request_id,
        "an engine knows requests by their ids, and clients repeat them"
    );

    let response = send(server.address, &with_id("not one"), &body).await;
    let given = response.header("x-request-id").unwrap();
    assert_eq!(given.len(), 32);
    assert_eq!(engine.requests()[2].request_id, given);
    // Every response has one.
    assert!(
        get(server.address, "/nowhere")
            .await
            .header("x-request-id")
            .is_some()
    );
}
