//! What a worker's process tells over HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use forebay_engine::remote::WorkerCard;
use forebay_engine::{Engine as _, ErrorClass};
use forebay_observability::Registry;
use forebay_runtime::{TaskKind, Tasks};
use forebay_testkit::http::{self, Response};
use forebay_worker::WorkerHandle;
use forebay_worker::status::{StatusProcess, StatusServer};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::deployment::{Deployment, request};
use crate::toy::in_time;

struct Status {
    address: SocketAddr,
    workers: Arc<OnceLock<Vec<WorkerHandle>>>,
    tasks: Tasks,
}

impl Status {
    async fn of(deployment: &Deployment) -> Self {
        let workers = Arc::default();
        let process = StatusProcess {
            health: deployment.health.clone(),
            metrics: Registry::new(),
            workers: Arc::clone(&workers),
            host: None,
        };
        let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
        let server = StatusServer::bind(anywhere, process).unwrap();
        let (address, tasks) = (server.local_addr(), deployment.tasks.clone());
        tasks.spawn(TaskKind::Critical, "status", server.run());
        Self {
            address,
            workers,
            tasks,
        }
    }

    /// Off the one thread of the test, which serves.
    async fn ask(
        &self,
        ask: impl FnOnce(SocketAddr) -> std::io::Result<Response> + Send + 'static,
    ) -> (u16, String) {
        let address = self.address;
        let asked = self.tasks.run_blocking("ask", move || ask(address));
        let response = in_time(asked).await.unwrap().unwrap();
        (response.status, response.body)
    }

    async fn get(&self, path: &'static str) -> (u16, Value) {
        let (status, body) = self.ask(move |address| http::get(address, path)).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn post(&self, path: &'static str) -> (u16, Value) {
        self.send(path, "").await
    }

    async fn send(&self, path: &'static str, body: &'static str) -> (u16, Value) {
        let (status, body) = self
            .ask(move |address| http::post(address, path, body))
            .await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn a_process_tells_how_it_is() {
    let mut deployment = Deployment::new().await;
    let status = Status::of(&deployment).await;
    let worker = deployment.start().await.unwrap();
    deployment.put().await;
    for path in ["/health", "/live", "/ready"] {
        let (code, report) = status.get(path).await;
        assert_eq!((code, &report["ready"]), (200, &json!(true)), "{path}");
    }
    deployment.toy.die();
    // It is noticed when someone asks the engine.
    deployment.removed().await;
    assert_eq!(status.get("/ready").await.0, 503);
    let (code, report) = status.get("/live").await;
    assert_eq!(code, 200);
    let reason = &report["conditions"][0]["reason"];
    assert_eq!(reason, "the engine does not answer");
    let (code, metrics) = status.ask(|address| http::get(address, "/metrics")).await;
    assert_eq!(code, 200);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    drop(worker);
}

#[tokio::test]
async fn a_process_tells_who_it_is() {
    let mut deployment = Deployment::new().await;
    let status = Status::of(&deployment).await;
    assert_eq!(status.get("/metadata").await.1, json!({"workers": []}));
    let worker = deployment.start().await.unwrap();
    let instance = deployment.put().await;
    status.workers.set(vec![worker.handle().clone()]).unwrap();
    let (code, metadata) = status.get("/metadata").await;
    assert_eq!(code, 200);
    let told = &metadata["workers"][0];
    assert_eq!(told["worker"], "0000000000000005");
    assert_eq!(told["registered"], true);
    assert_eq!(told["address"], json!(instance.address));
    assert_eq!(told["card"]["model"], "model");
    assert_eq!(
        told["card"]["capabilities"],
        json!(["generate", "kv_events"])
    );
    let digest = worker.handle().card().digest().to_string();
    assert_eq!(told["card"]["digest"], json!(digest));
}

#[tokio::test]
async fn an_operator_pauses_and_resumes_the_engine() {
    let mut deployment = Deployment::new().await;
    let status = Status::of(&deployment).await;
    assert_eq!(status.post("/engine/pause").await.0, 404, "nobody is there");
    let worker = deployment.start().await.unwrap();
    status.workers.set(vec![worker.handle().clone()]).unwrap();
    let remote = deployment.found().await;

    let (code, told) = status.post("/engine/pause").await;
    assert_eq!(
        (code, told),
        (200, json!({"workers": [{"worker": "0000000000000005"}]}))
    );
    assert!(!deployment.toy.is_moving());
    // Nobody is sent to it, and who is on the way goes elsewhere.
    deployment.removed().await;
    let refused = remote.generate(request(3)).await.err().unwrap();
    let told = (refused.class, &*refused.reason);
    assert_eq!(told, (ErrorClass::Unavailable, "worker_paused"));
    let (code, report) = status.get("/ready").await;
    assert_eq!(
        (code, &report["conditions"][0]["reason"]),
        (503, &json!("paused"))
    );
    let told = &status.get("/metadata").await.1["workers"][0];
    assert_eq!(
        (&told["paused"], &told["registered"]),
        (&json!(true), &json!(false))
    );

    let (code, _) = status.post("/engine/resume?worker=0000000000000005").await;
    assert_eq!(code, 200);
    deployment.put().await;
    in_time(deployment.health.ready()).await;
    let told = &status.get("/metadata").await.1["workers"][0];
    assert_eq!(
        (&told["paused"], &told["registered"]),
        (&json!(false), &json!(true))
    );
    let running = remote.generate(request(3)).await.unwrap();
    assert_eq!(crate::count(running).await, 3);

    let (code, error) = status.post("/engine/pause?worker=6").await;
    assert_eq!(
        (code, &error["error"]["code"]),
        (404, &json!("unknown_worker"))
    );
    let (code, error) = status.post("/engine/stop").await;
    assert_eq!(
        (code, &error["error"]["code"]),
        (404, &json!("unknown_control"))
    );
    assert!(deployment.toy.is_moving());
}

#[tokio::test]
async fn an_operator_is_told_which_workers_did_it() {
    let (mut well, mut broken) = (Deployment::new().await, Deployment::new().await);
    let status = Status::of(&well).await;
    let (one, other) = (well.start().await.unwrap(), broken.start().await.unwrap());
    well.put().await;
    broken.put().await;
    let both = vec![other.handle().clone(), one.handle().clone()];
    status.workers.set(both).unwrap();
    broken.toy.die();
    // It is noticed when someone asks the engine.
    broken.removed().await;

    let (code, told) = status.post("/engine/pause").await;
    let error = &told["error"];
    assert_eq!((code, &error["code"]), (503, &json!("engine_lost")));
    let worker = "0000000000000005";
    let outcomes = json!([{"worker": worker, "error": error}, {"worker": worker}]);
    assert_eq!(told["workers"], outcomes);
    assert!(!well.toy.is_moving());
}

#[tokio::test]
async fn what_a_user_is_shown_is_served() {
    let deployment = Deployment::new().await;
    let status = Status::of(&deployment).await;
    let offers = StatusServer::OFFERS.map(|line| line.split_once(' ').unwrap());
    let paths = |(method, paths): (&'static str, &'static str)| {
        paths.split_whitespace().map(move |path| (method, path))
    };
    let offers: Vec<_> = offers.into_iter().flat_map(paths).collect();
    assert!(offers.contains(&("POST", "/engine/card")));
    for (method, path) in offers {
        let (answer, body) = match method {
            "GET" => status.ask(move |address| http::get(address, path)).await,
            _ => {
                status
                    .ask(move |address| http::post(address, path, "{}"))
                    .await
            }
        };
        // Of workers there are none yet.
        let is_known = answer != 404 || body.contains("unknown_worker");
        assert!(is_known && answer != 405, "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_an_error_of_the_usual_form() {
    let deployment = Deployment::new().await;
    let status = Status::of(&deployment).await;
    let code = |error: Value| error["error"]["code"].as_str().unwrap().to_owned();
    let (answer, error) = status.post("/engine/pause?workr=1").await;
    assert_eq!((answer, &*code(error)), (400, "malformed_query"));
    let (answer, error) = status.get("/engine/pause").await;
    assert_eq!((answer, &*code(error)), (405, "method_not_allowed"));
    let (answer, error) = status.get("/nothing").await;
    assert_eq!((answer, &*code(error)), (404, "unknown_route"));
    let long = |address| http::post(address, "/engine/card", &" ".repeat(65 << 10));
    let (answer, error) = status.ask(long).await;
    let error = serde_json::from_str(&error).unwrap();
    assert_eq!((answer, &*code(error)), (413, "body_not_read"));
}

#[tokio::test]
async fn an_operator_changes_what_a_worker_says_about_itself() {
    let mut deployment = Deployment::new().await;
    let status = Status::of(&deployment).await;
    let worker = deployment.start().await.unwrap();
    status.workers.set(vec![worker.handle().clone()]).unwrap();
    let remote = deployment.found().await;
    let mut changes = remote.card_changes();
    remote.load();

    let body = r#"{"weight": 0.1, "topology": {"zone": "a"}, "lora_adapters": ["x"]}"#;
    let (code, told) = status.send("/engine/card", body).await;
    assert_eq!(
        (code, told),
        (200, json!({"workers": [{"worker": "0000000000000005"}]}))
    );
    let card = in_time(changes.next()).await.unwrap();
    assert_eq!((card.weight, card.revision), (0.1, 1));
    assert_eq!(card.topology["zone"], "a");
    // Discovery has it, too, and the same instance is there.
    let again = deployment.put().await;
    let found = WorkerCard::decode(again.card).unwrap();
    assert_eq!((found, again.worker), ((*card).clone(), worker.id()));
    let told = &status.get("/metadata").await.1["workers"][0]["card"];
    assert_eq!(
        (&told["weight"], &told["revision"]),
        (&json!(0.1), &json!(1))
    );
    assert_eq!(told["lora_adapters"], json!(["x"]));

    let refused = [
        (r#"{"wieght": 0.5}"#, "wieght"),
        (r#"{"weight": -1}"#, "weight"),
        (r#"{"weight": 1e7}"#, "weight"),
        (r#"{"weight": "much"}"#, "weight"),
        (r#"{"topology": {"zone": 7}}"#, "topology.zone"),
        (r#"{"aliases": [""]}"#, "aliases"),
        (r#"{"model": "other"}"#, "model"),
    ];
    for (body, param) in refused {
        let (code, error) = status.send("/engine/card", body).await;
        let error = &error["error"];
        assert_eq!((code, &error["param"]), (400, &json!(param)), "{error}");
    }
    let (code, _) = status.send("/engine/card", "weight=1").await;
    assert_eq!(code, 400);
    let (code, error) = status.send("/engine/card?worker=6", "{}").await;
    assert_eq!(
        (code, &error["error"]["code"]),
        (404, &json!("unknown_worker"))
    );
    let page = |address| {
        let origin = [("origin", "http://elsewhere.example")];
        http::post_with(address, "/engine/card", &origin, r#"{"weight": 9}"#)
    };
    assert_eq!(status.ask(page).await.0, 403);
    assert_eq!(worker.handle().card().revision, 1);
}

#[tokio::test]
async fn a_page_in_a_browser_has_no_control() {
    let mut deployment = Deployment::new().await;
    let status = Status::of(&deployment).await;
    let worker = deployment.start().await.unwrap();
    status.workers.set(vec![worker.handle().clone()]).unwrap();
    deployment.put().await;
    let (answer, error) = status.ask(page_pauses).await;
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!(
        (answer, &error["error"]["code"]),
        (403, &json!("origin_not_allowed"))
    );
    assert!(deployment.toy.is_moving());
}

/// What a page at another address can have a browser send without asking.
fn page_pauses(address: SocketAddr) -> std::io::Result<Response> {
    let origin = [("origin", "http://elsewhere.example")];
    http::post_with(address, "/engine/pause", &origin, "")
}
