//! What the shell adds to the mocker: real time, streams, tasks, and an end.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use forebay_engine::{
    Control, Engine, Error, ErrorClass, FinishReason, GenerateOutput, GenerateRequest,
    GenerateStream, Load,
};
use forebay_mock_engine::{Fault, MockEngine, MockerConfig, ScheduledFault};
use forebay_observability::Registry;
use forebay_protocols::worker::StopConditions;
use forebay_runtime::{TaskKind, Tasks};
use forebay_tokens::{ContentKey, RequestId};
use futures::{StreamExt as _, future};
use tokio::time::{Instant, timeout};

/// For what must happen, on a machine however busy.
const DEADLINE: Duration = Duration::from_secs(60);

fn tasks() -> Tasks {
    Tasks::new(&Registry::new())
}

fn start(config: &MockerConfig, tasks: &Tasks) -> MockEngine {
    MockEngine::start("mock", config, 0, ContentKey::new([7; 32]), tasks).unwrap()
}

/// An engine whose iterations take no time.
fn instant() -> MockerConfig {
    MockerConfig {
        speed: 0.0,
        ..MockerConfig::default()
    }
}

fn request(id: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: id.into(),
        prompt_token_ids: (0..200).collect(),
        stop: Some(StopConditions {
            max_tokens: Some(max_tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn all(stream: GenerateStream) -> Vec<Result<GenerateOutput, Error>> {
    timeout(DEADLINE, stream.collect()).await.unwrap()
}

async fn tokens(engine: &MockEngine, request: GenerateRequest) -> usize {
    let outputs = all(engine.generate(request).await.unwrap()).await;
    let count = |output: Result<GenerateOutput, Error>| output.unwrap().token_ids.len();
    outputs.into_iter().map(count).sum()
}

fn refusal(refused: Result<GenerateStream, Error>) -> Error {
    refused.err().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_timer_is_late_does_not_add_up() {
    let engine = start(&MockerConfig::default(), &tasks());
    let begun = Instant::now();
    let mut stream = engine.generate(request("a", 200)).await.unwrap();
    let mut at = Vec::new();
    while let Some(output) = stream.next().await {
        at.resize(at.len() + output.unwrap().token_ids.len(), begun.elapsed());
    }
    assert_eq!(at.len(), 200);
    // 5.7 ms, 40 us for the sequence, and 0.13 us for each token of context.
    let model = |token: usize| {
        let context: usize = (201..=200 + token).sum();
        let prefill = 5.7e-3 + 200.0 * 56e-6 + 20_100.0 * 1e-9;
        prefill + token as f64 * 5.74e-3 + context as f64 * 130e-9
    };
    for (token, at) in at.iter().enumerate() {
        let late = at.as_secs_f64() - model(token);
        assert!((-1e-6..2e-3).contains(&late), "token {token}: {late} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_engine_goes_on_afterwards() {
    let engine = start(&instant(), &tasks());
    engine.inject(Fault::Stall { seconds: 30.0 }).unwrap();
    let begun = Instant::now();
    assert_eq!(tokens(&engine, request("a", 5)).await, 5);
    assert!(begun.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_slow_engine_takes_its_factor() {
    let engine = start(&MockerConfig::default(), &tasks());
    let mut times = Vec::new();
    for (name, factor) in [("usual", 1.0), ("slow", 10.0)] {
        engine.control(Control::ClearKvCache).await.unwrap();
        engine.inject(Fault::Slow { factor }).unwrap();
        let begun = Instant::now();
        assert_eq!(tokens(&engine, request(name, 20)).await, 20);
        times.push(begun.elapsed().as_secs_f64());
    }
    assert!((9.0..11.0).contains(&(times[1] / times[0])), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusing_engine_says_when_to_come_back() {
    let engine = start(&instant(), &tasks());
    engine.inject(Fault::Refuse { seconds: 5.0 }).unwrap();
    let error = refusal(engine.generate(request("a", 1)).await);
    assert_eq!(error.class, ErrorClass::CapacityExhausted);
    tokio::time::sleep(error.retry_after.unwrap()).await;
    assert_eq!(tokens(&engine, request("a", 1)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_its_time_ends_all() {
    let config = MockerConfig {
        faults: vec![ScheduledFault {
            after_seconds: 0.5,
            instance: None,
            fault: Fault::Crash,
        }],
        ..MockerConfig::default()
    };
    let tasks = tasks();
    let engine = start(&config, &tasks);
    let events = engine.kv_events().unwrap();
    let streams = [
        engine.generate(request("a", 1_000)).await.unwrap(),
        engine.generate(request("b", 1_000)).await.unwrap(),
    ];
    for outputs in future::join_all(streams.map(all)).await {
        let (last, before) = outputs.split_last().unwrap();
        assert!(!before.is_empty(), "it began before it crashed");
        assert!(before.iter().all(Result::is_ok));
        let error = last.as_ref().unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable);
        assert_eq!(error.reason, "engine_crashed");
    }
    let events: Vec<_> = timeout(DEADLINE, events.collect()).await.unwrap();
    assert!(events.len() > 1);
    assert_eq!(engine.load(), Load::default());
    let gone = [
        refusal(engine.generate(request("c", 1)).await),
        engine.control(Control::Resume).await.unwrap_err(),
        engine.kv_events().err().unwrap(),
    ];
    assert!(
        gone.iter()
            .all(|error| error.class == ErrorClass::Unavailable)
    );
    // A dead engine does not take its process with it.
    assert!(!tasks.is_shutting_down());
    engine.stop().await;
    assert!(!tasks.is_shutting_down());
}

#[tokio::test]
async fn a_stopped_engine_ends_its_streams_and_refuses() {
    let tasks = tasks();
    let engine = start(&instant(), &tasks);
    engine.control(Control::Pause).await.unwrap();
    let stream = engine.generate(request("a", 5)).await.unwrap();
    let events = engine.kv_events().unwrap();
    engine.stop().await;
    let outputs = all(stream).await;
    let [Err(error)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(error.reason, "engine_stopped");
    let events: Vec<_> = timeout(DEADLINE, events.collect()).await.unwrap();
    assert_eq!(events.len(), 1, "the snapshot, and the end");
    assert_eq!(tasks.running(), []);
}

#[tokio::test]
async fn what_nobody_reads_is_one_output() {
    let engine = start(&instant(), &tasks());
    let slow = engine.generate(request("slow", 500)).await.unwrap();
    assert_eq!(tokens(&engine, request("fast", 600)).await, 600);
    let outputs = all(slow).await;
    let [Ok(output)] = &outputs[..] else {
        panic!("{} outputs", outputs.len());
    };
    assert_eq!(output.token_ids.len(), 500);
    assert_eq!(output.prompt.unwrap().prompt_tokens, 200);
    assert_eq!(output.finish_reason(), FinishReason::Length);
}

#[tokio::test]
async fn hundreds_of_engines_run_in_one_process() {
    const ENGINES: usize = 500;
    let tasks = tasks();
    let engines: Vec<_> = (0..ENGINES).map(|_| start(&instant(), &tasks)).collect();
    let answers = engines.iter().map(|engine| tokens(engine, request("a", 7)));
    assert_eq!(future::join_all(answers).await, [7; ENGINES]);
    let running = tasks.running();
    assert_eq!((running.len(), running[0].count), (1, ENGINES));
    future::join_all(engines.into_iter().map(MockEngine::stop)).await;
    assert_eq!(tasks.running(), []);
}

/// Callers on several threads, who read, leave and abort as they like.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_come_and_go_and_nothing_stays() {
    let tasks = tasks();
    let config = MockerConfig {
        kv_blocks: 100,
        max_sequences: 16,
        ..instant()
    };
    let engine = std::sync::Arc::new(start(&config, &tasks));
    let mut callers = Vec::new();
    for n in 0..400 {
        let engine = engine.clone();
        let caller = async move {
            let name = format!("r{n}");
            let id = RequestId::new(&name).unwrap();
            let mut stream = engine.generate(request(&name, 1 + n % 90)).await.unwrap();
            match n % 4 {
                0 => drop(stream),
                1 => {
                    stream.next().await;
                }
                2 => {
                    engine.abort(&id);
                    let last = stream.collect::<Vec<_>>().await.pop().unwrap().unwrap();
                    assert_ne!(last.finish_reason(), FinishReason::Unspecified);
                }
                _ => {
                    let outputs: Vec<_> = stream.collect().await;
                    let tokens = outputs.into_iter().map(|o| o.unwrap().token_ids.len());
                    assert_eq!(tokens.sum::<usize>(), 1 + n as usize % 90);
                }
            }
        };
        callers.push(tasks.spawn(TaskKind::Request, "caller", caller));
    }
    for mut caller in callers {
        let end = timeout(DEADLINE, caller.ended()).await.unwrap();
        assert_eq!(end.as_str(), "finished");
    }
    let idle = async {
        loop {
            let load = engine.load();
            if load.running_requests + load.waiting_requests + load.kv_blocks_active == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, idle).await.unwrap();
}
