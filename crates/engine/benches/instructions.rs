//! What the in-process planes add to an engine: for a request, and for each token.

use std::sync::Arc;

use forebay_engine::remote::{EngineHandler, RemoteEngine, WorkerCard, engine_endpoint};
use forebay_engine::{
    Capabilities, Engine, EngineInfo, Error, FinishReason, GenerateOutput, GenerateRequest,
    GenerateStream, Load,
};
use forebay_observability::Registry;
use forebay_protocols::worker::StopConditions;
use forebay_runtime::{Instance, Planes, Served, Tasks};
use forebay_testkit::instructions::{self, measured};
use forebay_tokens::{BlockSize, RequestId, WorkerId};
use futures::executor::block_on;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::runtime::Runtime;

/// Has every output at once, so that nothing but the planes is counted.
struct Ready(EngineInfo);

impl Engine for Ready {
    fn info(&self) -> &EngineInfo {
        &self.0
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let budget = request.stop.and_then(|stop| stop.max_tokens).unwrap_or(1);
        let output = move |number| GenerateOutput {
            token_ids: vec![number],
            finish_reason: match number + 1 == budget {
                true => FinishReason::Length.into(),
                false => FinishReason::Unspecified.into(),
            },
            ..Default::default()
        };
        async move { Ok(stream::iter((0..budget).map(output).map(Ok)).boxed()) }.boxed()
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        Load::default()
    }
}

/// The engine behind planes, and what keeps it there.
struct Behind {
    engine: RemoteEngine,
    _served: Box<dyn Served>,
    _runtime: Runtime,
}

fn behind_planes() -> Behind {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime starts");
    let info = EngineInfo {
        model: "ready".into(),
        capabilities: Capabilities::GENERATE,
        context_length: 131_072,
        vocabulary_size: 32_000,
        block_size: BlockSize::new(64).expect("above 0"),
        kv_blocks: 0,
        eos_token_ids: vec![],
        data_parallel_ranks: 1,
    };
    let planes = Planes::in_process();
    let endpoint = engine_endpoint("bench").expect("a proper name");
    let card = WorkerCard::new(info.model.clone(), info.clone());
    let handler = Arc::new(EngineHandler::new(Arc::new(Ready(info))));
    let served = block_on(planes.requests.serve(&endpoint, WorkerId(1), handler));
    let served = served.expect("nothing is served there");
    let instance = Instance {
        endpoint,
        worker: WorkerId(1),
        address: served.address().to_owned(),
        card: card.encode(),
    };
    let _guard = runtime.enter();
    let tasks = Tasks::new(&Registry::new());
    Behind {
        engine: RemoteEngine::new(instance, &planes, &tasks).expect("the card is good"),
        _served: served,
        _runtime: runtime,
    }
}

fn request(prompt_tokens: u32, tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: "0123456789abcdef0123456789abcdef".into(),
        prompt_token_ids: (0..prompt_tokens).collect(),
        stop: Some(StopConditions {
            max_tokens: Some(tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A whole request of one token.
fn remote_request(prompt_tokens: u32) {
    let behind = behind_planes();
    let request = request(prompt_tokens, 1);
    let outputs =
        measured(|| block_on(async { Ok(behind.engine.generate(request).await?.count().await) }));
    assert_eq!(outputs, Ok::<_, Error>(1));
}

fn remote_request_128() {
    remote_request(128);
}

fn remote_request_8192() {
    remote_request(8192);
}

/// The outputs of a generation that has begun.
fn remote_stream_512() {
    let behind = behind_planes();
    let outputs = block_on(behind.engine.generate(request(1, 512)));
    let outputs = outputs.expect("the engine takes anything");
    assert_eq!(measured(|| block_on(outputs.count())), 512);
}

fn main() {
    instructions::main(&[
        ("remote_request_128", remote_request_128),
        ("remote_request_8192", remote_request_8192),
        ("remote_stream_512", remote_stream_512),
    ]);
}
