//! Workers that misbehave, and clients that do.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_engine::remote::{
    ArtefactDigest, Artefacts, EngineHandler, RemoteEngine, WorkerCard, engine_endpoint,
};
use forebay_engine::{
    Capabilities, Control, Engine, EngineInfo, Error, ErrorClass, FinishReason, GenerateOutput,
    GenerateRequest, GenerateStream, Load,
};
use forebay_observability::Registry;
use forebay_protocols::worker::{Accepted, WorkerRequest, artefact::Content};
use forebay_runtime::{
    Instance, Planes, ResponseStream, Served, StreamHandler, StreamRequest, Tasks,
};
use forebay_tokens::{BlockSize, RequestId, WorkerId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);

fn info() -> EngineInfo {
    EngineInfo {
        model: "scripted".into(),
        capabilities: Capabilities::GENERATE,
        context_length: 64,
        vocabulary_size: 64,
        block_size: BlockSize::new(16).unwrap(),
        kv_blocks: 9,
        eos_token_ids: vec![],
        data_parallel_ranks: 1,
    }
}

/// A remote engine whose worker is `handler`.
async fn remote(handler: impl StreamHandler) -> (RemoteEngine, Box<dyn Served>, Planes) {
    let planes = Planes::in_process();
    let endpoint = engine_endpoint("test").unwrap();
    let serve = planes
        .requests
        .serve(&endpoint, WorkerId(1), Arc::new(handler));
    let served = serve.await.unwrap();
    let card = WorkerCard::new("scripted", info());
    let instance = Instance {
        endpoint,
        worker: WorkerId(1),
        address: served.address().to_owned(),
        card: card.encode(),
    };
    let tasks = Tasks::new(&Registry::new());
    let engine = RemoteEngine::new(instance, &planes, &tasks).unwrap();
    (engine, served, planes)
}

/// Answers every stream with the same frames.
struct Frames(Vec<Bytes>);

impl StreamHandler for Frames {
    fn handle(&self, _: StreamRequest) -> ResponseStream {
        stream::iter(self.0.clone().into_iter().map(Ok)).boxed()
    }
}

fn frame(message: impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn output(token: u32, finish: FinishReason) -> Bytes {
    frame(GenerateOutput {
        token_ids: vec![token],
        finish_reason: finish.into(),
        ..Default::default()
    })
}

const GARBAGE: Bytes = Bytes::from_static(b"\xff\xff\xff\xff");

async fn answer(frames: Vec<Bytes>) -> Result<Vec<Result<GenerateOutput, Error>>, Error> {
    let (engine, _served, _planes) = remote(Frames(frames)).await;
    let outputs = engine.generate(GenerateRequest::default()).await?;
    Ok(outputs.collect().await)
}

#[tokio::test]
async fn a_worker_that_breaks_the_protocol_ends_a_generation_with_a_typed_error() {
    let accepted = || frame(Accepted {});
    let goes_on = || output(1, FinishReason::Unspecified);
    for frames in [vec![], vec![GARBAGE]] {
        let error = answer(frames).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BackendProtocol);
    }
    let broken = [
        vec![accepted()],
        vec![accepted(), goes_on()],
        vec![accepted(), goes_on(), GARBAGE, goes_on()],
    ];
    for frames in broken {
        let mut outputs = answer(frames).await.unwrap();
        let error = outputs.pop().unwrap().unwrap_err();
        assert_eq!(error.class, ErrorClass::BackendProtocol);
        assert!(outputs.iter().all(Result::is_ok));
    }
    let last = || output(2, FinishReason::Length);
    let outputs = answer(vec![accepted(), goes_on(), last(), goes_on()]).await;
    assert_eq!(
        outputs.unwrap().len(),
        2,
        "what comes after the end is not looked at"
    );
}

#[tokio::test]
async fn operations_of_one_answer_need_it() {
    for frames in [vec![], vec![GARBAGE]] {
        let (engine, _served, _planes) = remote(Frames(frames)).await;
        let error = engine.control(Control::Pause).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BackendProtocol);
        let error = engine.embed(Default::default()).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BackendProtocol);
    }
}

/// An engine that does what its name says, and notes what it is asked.
#[derive(Default)]
struct Scripted {
    error: Option<Error>,
    load: Mutex<Load>,
    aborted: Arc<Mutex<Vec<String>>>,
}

impl Engine for Scripted {
    fn info(&self) -> &EngineInfo {
        unreachable!("the card has it")
    }

    fn generate(&self, _: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        async {
            match &self.error {
                Some(error) => Err(error.clone()),
                None => Ok(stream::pending().boxed()),
            }
        }
        .boxed()
    }

    fn abort(&self, request: &RequestId) {
        self.aborted.lock().push(request.to_string());
    }

    fn load(&self) -> Load {
        *self.load.lock()
    }
}

#[tokio::test]
async fn a_handler_refuses_what_it_does_not_know() {
    let handler = EngineHandler::new(Arc::new(Scripted::default()));
    let ask = |frame| {
        let mut answer = handler.handle(StreamRequest::of(frame));
        answer.next().now_or_never().unwrap().unwrap().unwrap_err()
    };
    assert_eq!(ask(GARBAGE).class, ErrorClass::BackendProtocol);
    // An operation of a later version: field 99, empty.
    let unknown = Bytes::from_static(b"\x9a\x06\x00");
    assert_eq!(
        WorkerRequest::decode(unknown.clone()),
        Ok(Default::default())
    );
    let error = ask(unknown);
    assert_eq!(error.class, ErrorClass::Unsupported);
    assert_eq!(error.reason, "unknown_operation");
}

#[tokio::test]
async fn a_handler_tells_that_its_engine_may_be_gone() {
    let refusal = |class| Scripted {
        error: Some(Error::new(class, "scripted", "scripted")),
        ..Default::default()
    };
    let is_told = async |class| {
        let handler = Arc::new(EngineHandler::new(Arc::new(refusal(class))));
        let shared = Shared(handler.clone());
        let (engine, _served, _planes) = remote(shared).await;
        let error = engine.generate(GenerateRequest::default()).await.err();
        assert_eq!(error.unwrap().class, class);
        handler.unavailable().now_or_never().is_some()
    };
    assert!(is_told(ErrorClass::Unavailable).await);
    assert!(!is_told(ErrorClass::CapacityExhausted).await);
}

/// A handler that others have, too.
struct Shared(Arc<EngineHandler>);

impl StreamHandler for Shared {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        self.0.handle(request)
    }
}

#[tokio::test]
async fn aborts_and_looks_at_the_load_may_come_from_anywhere() {
    let scripted = Scripted::default();
    scripted.load.lock().waiting_requests = 7;
    let aborted = scripted.aborted.clone();
    let (engine, _served, _planes) = remote(EngineHandler::new(Arc::new(scripted))).await;
    let engine = Arc::new(engine);
    let unknown = Load {
        kv_blocks_total: 9,
        ..Default::default()
    };
    let elsewhere = engine.clone();
    let first = std::thread::spawn(move || {
        elsewhere.abort(&RequestId::new("request").unwrap());
        elsewhere.load()
    });
    assert_eq!(first.join().unwrap(), unknown);
    let done = async {
        while aborted.lock().is_empty() || engine.load().waiting_requests != 7 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, done).await.unwrap();
    assert_eq!(*aborted.lock(), ["request"]);
}

#[tokio::test]
async fn a_worker_that_goes_away_keeps_its_last_load() {
    let scripted = Scripted::default();
    scripted.load.lock().waiting_requests = 7;
    let (engine, served, _planes) = remote(EngineHandler::new(Arc::new(scripted))).await;
    let known = async {
        while engine.load().waiting_requests != 7 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, known).await.unwrap();
    let mut running = engine.generate(GenerateRequest::default()).await.unwrap();
    assert!(running.next().now_or_never().is_none());
    drop(served);
    let error = running.next().await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(running.next().await.is_none());
    let error = engine.control(Control::Pause).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(engine.load().waiting_requests, 7);
}

#[tokio::test]
async fn an_artefact_is_fetched_from_the_worker() {
    let mut artefacts = Artefacts::new();
    let template = Content::Template("{{ messages }}".repeat(50_000));
    let digest = artefacts.insert(template.clone());
    let handler = EngineHandler::new(Arc::new(Scripted::default()));
    let handler = handler.with_artefacts(Arc::new(artefacts));
    let (remote, _served, _planes) = remote(handler).await;
    let fetched = timeout(DEADLINE, remote.artefact(digest)).await.unwrap();
    assert!(fetched.unwrap() == template);
    let unknown = remote.artefact(ArtefactDigest([0; 32])).await.unwrap_err();
    assert_eq!(unknown.class, ErrorClass::NotFound);
}
