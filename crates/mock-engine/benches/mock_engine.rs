//! What the engine itself costs, since it is inside every measurement that is made with it:
//! `cargo bench -p forebay-mock-engine`.
#![allow(clippy::print_stdout, reason = "the table is the output")]

use std::time::{Duration, Instant};

use forebay_engine::{Engine, GenerateRequest};
use forebay_mock_engine::{MockEngine, MockerConfig};
use forebay_observability::Registry;
use forebay_protocols::worker::StopConditions;
use forebay_runtime::Tasks;
use forebay_tokens::ContentKey;
use futures::{StreamExt as _, future};

fn request(n: usize, isl: usize, osl: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: format!("request-{n}"),
        // Every prompt is another from its first block on.
        prompt_token_ids: (0..isl)
            .map(|i| ((i * 7 + n * 13) % 30_000) as u32)
            .collect(),
        stop: Some(StopConditions {
            max_tokens: Some(osl),
            ignore_eos: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// `requests` in all, `concurrency` at a time; gives the time and the pieces that answers came in.
async fn run(
    engine: &MockEngine,
    requests: Vec<GenerateRequest>,
    concurrency: usize,
) -> (Duration, usize) {
    let begun = Instant::now();
    let pieces: usize = futures::stream::iter(requests)
        .map(|request| async {
            let stream = engine.generate(request).await.expect("there is room");
            stream.count().await
        })
        .buffer_unordered(concurrency)
        .fold(0, |sum, pieces| future::ready(sum + pieces))
        .await;
    (begun.elapsed(), pieces)
}

/// The least time of three runs, each with an engine of its own.
async fn measure(config: &MockerConfig, isl: usize, osl: u32, concurrency: usize, n: usize) {
    let tasks = Tasks::new(&Registry::new());
    let mut best = (Duration::MAX, 0);
    for _ in 0..3 {
        let engine = start(config, &tasks);
        let requests = (0..n).map(|i| request(i, isl, osl)).collect();
        best = best.min(run(&engine, requests, concurrency).await);
        engine.stop().await;
    }
    let (time, pieces) = best;
    let each = time.as_secs_f64() / n as f64;
    println!(
        "{isl:>6} {osl:>5} {concurrency:>12} {:>12.1} {:>10.0} {:>8.1}",
        each * 1e6,
        each * 1e9 / f64::from(osl),
        pieces as f64 / n as f64
    );
}

fn start(config: &MockerConfig, tasks: &Tasks) -> MockEngine {
    MockEngine::start("mock", config, 0, ContentKey::new([7; 32]), tasks).expect("it is valid")
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages = pages.split(' ').nth(1).expect("it has a second field");
    pages.parse::<usize>().expect("a number") * 4096
}

async fn measure_start(config: &MockerConfig, count: usize) {
    let tasks = Tasks::new(&Registry::new());
    let (begun, before) = (Instant::now(), resident_bytes());
    let engines: Vec<_> = (0..count).map(|_| start(config, &tasks)).collect();
    let time = begun.elapsed().as_secs_f64() * 1e6 / count as f64;
    let bytes = (resident_bytes() - before) as f64 / count as f64;
    println!(
        "{count} engines: {time:.1} us and {:.1} KB each",
        bytes / 1e3
    );
    future::join_all(engines.into_iter().map(MockEngine::stop)).await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let config = MockerConfig {
        speed: 0.0,
        ..MockerConfig::default()
    };
    // First, while nothing has been freed that could be used again.
    measure_start(&config, 500).await;
    println!("no engine time, one thread, every prompt unique, the best of three runs");
    println!(
        "{:>6} {:>5} {:>12} {:>12} {:>10} {:>8}",
        "ISL", "OSL", "concurrency", "us/request", "ns/token", "pieces"
    );
    for (isl, osl, concurrency, n) in [
        (128, 1, 16, 20_000),
        (8_192, 1, 16, 2_000),
        (128, 512, 1, 1_000),
        (128, 512, 128, 1_000),
    ] {
        measure(&config, isl, osl, concurrency, n).await;
    }
}
