use std::io::Cursor;
use std::sync::LazyLock;
use std::time::Duration;

use forebay_engine::{FinishReason, GenerateOutput};
use forebay_protocols::worker::{OutputOptions, SamplingParams, StopConditions};
use tokio::time::timeout;

use super::*;
use crate::{ModelShape, random_gguf};

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let shape = ModelShape {
        vocabulary: 301,
        // So long that no abort of an endless request comes too late.
        context_length: 16_384,
        layers: 2,
        hidden: 64,
        feed_forward: 96,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
    };
    Arc::new(Model::from_gguf(Cursor::new(random_gguf(&shape, 1))).unwrap())
});

/// For what must happen, on a machine however busy.
const DEADLINE: Duration = Duration::from_secs(60);

fn engine_with(config: &EngineConfig) -> NativeEngine {
    let registry = Registry::new();
    NativeEngine::start(config, MODEL.clone(), &Tasks::new(&registry), &registry).unwrap()
}

fn engine() -> NativeEngine {
    engine_with(&EngineConfig::default())
}

fn request(id: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: id.to_owned(),
        prompt_token_ids: (0..40).collect(),
        sampling: Some(SamplingParams {
            seed: 5,
            ..Default::default()
        }),
        stop: Some(StopConditions {
            max_tokens: Some(max_tokens),
            ..Default::default()
        }),
        output: Some(OutputOptions { logprobs: Some(1) }),
        ..Default::default()
    }
}

async fn all(stream: GenerateStream) -> Vec<Result<GenerateOutput, Error>> {
    timeout(DEADLINE, stream.collect()).await.unwrap()
}

/// Waits until nothing runs.
async fn idle(engine: &NativeEngine) {
    let wait = async {
        loop {
            let load = engine.load();
            if load.running_requests + load.waiting_requests + load.kv_blocks_active == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap();
}

forebay_engine::conformance_tests!(engine());

#[tokio::test]
async fn a_slow_consumer_holds_up_nobody_and_misses_nothing() {
    let engine = engine();
    let expected: Vec<_> = all(engine.generate(request("first", 60)).await.unwrap())
        .await
        .into_iter()
        .flat_map(|output| output.unwrap().token_ids)
        .collect();

    let slow = engine.generate(request("slow", 60)).await.unwrap();
    // Another stream that runs to its end while nobody reads the first.
    let fast = engine.generate(request("fast", 60)).await.unwrap();
    assert!(!all(fast).await.is_empty());
    idle(&engine).await;
    let outputs = all(slow).await;
    let [Ok(output)] = &outputs[..] else {
        panic!("what nobody has read is one output: {outputs:?}");
    };
    assert_eq!(output.token_ids, expected);
    assert_eq!(output.logprobs.len(), 60);
    assert_eq!(output.prompt.unwrap().prompt_tokens, 40);
    assert_eq!(output.finish_reason(), FinishReason::Length);
}

#[tokio::test]
async fn a_request_whose_caller_leaves_before_the_answer_is_gone() {
    let engine = engine();
    engine.control(Control::Pause).await.unwrap();
    // Polled once, so the command is on its way, and then dropped.
    let leaving = engine.generate(request("leaving", 400));
    let _ = timeout(Duration::ZERO, leaving).await;
    engine.control(Control::Resume).await.unwrap();
    let stream = engine.generate(request("leaving", 3)).await.unwrap();
    assert!(!all(stream).await.is_empty());
    idle(&engine).await;
}

#[tokio::test]
async fn an_abort_reaches_a_paused_engine() {
    let engine = engine();
    engine.control(Control::Pause).await.unwrap();
    let stream = engine.generate(request("paused", 400)).await.unwrap();
    engine.abort(&RequestId::new("paused").unwrap());
    let outputs = all(stream).await;
    let [Ok(output)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(output.finish_reason(), FinishReason::Cancelled);
    idle(&engine).await;
}

#[tokio::test]
async fn a_stopped_engine_ends_its_streams_and_refuses() {
    let engine = engine();
    engine.control(Control::Pause).await.unwrap();
    let stream = engine.generate(request("running", 400)).await.unwrap();
    let events = engine.kv_events().unwrap();
    engine.task.cancel();
    let outputs = all(stream).await;
    let [Err(error)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(error.class, ErrorClass::Unavailable);

    let refused = engine.generate(request("late", 1)).await.err().unwrap();
    assert_eq!(refused.class, ErrorClass::Unavailable);
    let refused = engine.control(Control::Resume).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Unavailable);
    let events: Vec<_> = timeout(DEADLINE, events.collect()).await.unwrap();
    let [Err(error)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(error.class, ErrorClass::Unavailable);
    timeout(DEADLINE, engine.stop()).await.unwrap();
}

#[tokio::test]
async fn a_panic_of_the_thread_ends_every_stream_with_an_internal_error() {
    let engine = engine();
    engine.control(Control::Pause).await.unwrap();
    let streams = [
        engine.generate(request("a", 400)).await.unwrap(),
        engine.generate(request("b", 400)).await.unwrap(),
    ];
    engine.commands.send(Command::Panic).await.unwrap();
    for stream in streams {
        let outputs = all(stream).await;
        let [Err(error)] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        assert_eq!(error.class, ErrorClass::Internal);
    }
    let refused = engine.generate(request("late", 1)).await.err().unwrap();
    assert_eq!(refused.class, ErrorClass::Unavailable);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test]
async fn a_prefix_moves_between_engines_of_one_key() {
    let config = EngineConfig {
        content_key: Some(ContentKey::new([3; 32])),
        ..EngineConfig::default()
    };
    let (source, target) = (engine_with(&config), engine_with(&config));
    let asked = request("moved", 8);
    let expected = all(source.generate(asked.clone()).await.unwrap()).await;
    let prompt = asked.prompt_token_ids.clone();
    let blocks = source
        .export_prefix(prompt.clone(), String::new())
        .await
        .unwrap();
    assert_eq!(blocks.len(), 2);
    let imported = target.import_prefix(prompt.clone(), String::new(), blocks.clone());
    assert_eq!(imported.await.unwrap(), 2);
    let got = all(target.generate(asked).await.unwrap()).await;
    assert_eq!(got[0].as_ref().unwrap().prompt.unwrap().cached_tokens, 32);
    let tokens = |outputs: Vec<Result<GenerateOutput, Error>>| -> Vec<TokenId> {
        outputs
            .into_iter()
            .flat_map(|o| o.unwrap().token_ids)
            .collect()
    };
    assert_eq!(tokens(got), tokens(expected));

    // An engine alone draws its own key, and shares with nobody.
    let stranger = engine();
    let error = stranger.import_prefix(prompt, String::new(), blocks).await;
    assert_eq!(error.unwrap_err().reason, "kv_content_mismatch");
}

#[tokio::test]
async fn metrics_count_what_was_done() {
    let registry = Registry::new();
    let tasks = Tasks::new(&registry);
    let config = EngineConfig::default();
    let engine = NativeEngine::start(&config, MODEL.clone(), &tasks, &registry).unwrap();
    for name in ["a", "b"] {
        all(engine.generate(request(name, 7)).await.unwrap()).await;
    }
    idle(&engine).await;
    let text = registry.encode();
    for line in [
        "forebay_engine_prompt_tokens_total 80",
        "forebay_engine_cached_prompt_tokens_total 32",
        "forebay_engine_generation_tokens_total 14",
        "forebay_engine_requests_running 0",
        "forebay_engine_preemptions_total 0",
        // Two steps of two tokens less in the second prompt, none of them empty.
        "forebay_engine_step_tokens_sum 60.0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
    }
}
