//! How fast the engine is for its callers: through the `Engine` trait, thread and streams included.
//!
//! `cargo bench -p forebay-native-engine --bench engine -- --model PATH [--threads N]`

#![allow(clippy::print_stdout)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use forebay_engine::{Control, Engine, GenerateRequest};
use forebay_native_engine::{EngineConfig, NativeEngine};
use forebay_observability::Registry;
use forebay_protocols::worker::{SamplingParams, StopConditions};
use forebay_runtime::Tasks;
use forebay_tokens::TokenId;
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::join_all;

type Failure = Box<dyn std::error::Error>;

const PROMPT_TOKENS: usize = 404;
const DECODED_TOKENS: u32 = 64;
const REPEATS: u64 = 7;

fn main() -> Result<(), Failure> {
    let Some((model, threads)) = arguments()? else {
        println!("engine: give --model PATH to run it");
        return Ok(());
    };
    let registry = Registry::new();
    let config = EngineConfig {
        threads,
        ..EngineConfig::default()
    };
    let begin = Instant::now();
    let engine = NativeEngine::load(&config, &model, &Tasks::new(&registry), &registry)?;
    println!("model    {}", engine.info().model);
    println!("load     {:.2} s", begin.elapsed().as_secs_f64());
    println!();
    println!(
        "{:<44}{:>12}{:>12}{:>12}",
        "case", "median", "worst", "best"
    );

    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    report("time to first token, 404 tokens", "ms", ms, |n| {
        block_on(first_token(&engine, &prompt(PROMPT_TOKENS, n)))
    })?;
    let tokens = PROMPT_TOKENS as f64;
    let rate = |time: Duration| tokens / time.as_secs_f64();
    report("prefill, 404 tokens", "tok/s", rate, |n| {
        block_on(first_token(&engine, &prompt(PROMPT_TOKENS, 100 + n)))
    })?;
    let cached = prompt(PROMPT_TOKENS, 1_000);
    block_on(first_token(&engine, &cached))?;
    report("time to first token, 400 of 404 cached", "ms", ms, |_| {
        block_on(first_token(&engine, &cached))
    })?;
    for (sequences, temperature) in [(1, 0.0), (8, 0.0), (1, 1.0), (8, 1.0)] {
        let tokens = f64::from(DECODED_TOKENS - 1) * sequences as f64;
        let name = match temperature {
            0.0 => format!("decode, {sequences} sequences, greedy"),
            _ => format!("decode, {sequences} sequences, top-p 0.95"),
        };
        let rate = |time: Duration| tokens / time.as_secs_f64();
        report(&name, "tok/s", rate, |n| {
            block_on(decode(&engine, sequences, temperature, n))
        })?;
    }
    Ok(())
}

/// Time to the first token, with one sequence.
async fn first_token(engine: &NativeEngine, prompt: &[TokenId]) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let mut stream = engine.generate(request(0, prompt, 0.0, 1)).await?;
    stream.next().await.ok_or("a stream without an output")??;
    Ok(begin.elapsed())
}

/// Time that sequences with short prompts decode together, from the first token of the last one
/// on.
async fn decode(
    engine: &NativeEngine,
    sequences: u64,
    temperature: f32,
    salt: u64,
) -> Result<Duration, Failure> {
    engine.control(Control::Pause).await?;
    let mut streams = Vec::new();
    for number in 0..sequences {
        let prompt = prompt(12, 10_000 + salt * 100 + number);
        let request = request(number, &prompt, temperature, DECODED_TOKENS);
        streams.push(engine.generate(request).await?);
    }
    engine.control(Control::Resume).await?;
    for stream in &mut streams {
        stream.next().await.ok_or("a stream without an output")??;
    }
    let begin = Instant::now();
    let ends = streams.into_iter().map(|stream| stream.count());
    join_all(ends).await;
    Ok(begin.elapsed())
}

fn request(number: u64, prompt: &[TokenId], temperature: f32, tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: format!("bench-{number}"),
        prompt_token_ids: prompt.to_vec(),
        sampling: Some(SamplingParams {
            temperature: Some(temperature),
            top_p: Some(0.95),
            seed: number,
            ..Default::default()
        }),
        stop: Some(StopConditions {
            max_tokens: Some(tokens),
            ignore_eos: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Ordinary tokens that `salt` names.
fn prompt(length: usize, salt: u64) -> Vec<TokenId> {
    (0..length as u64)
        .map(|i| ((i * 7_919 + salt * 104_729 + i / 7) % 40_000 + 1_000) as TokenId)
        .collect()
}

fn report(
    name: &str,
    unit: &str,
    measure: impl Fn(Duration) -> f64,
    mut run: impl FnMut(u64) -> Result<Duration, Failure>,
) -> Result<(), Failure> {
    let mut times = (0..REPEATS).map(&mut run).collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    let middle = times[times.len() / 2];
    let [median, worst, best] = [middle, times[times.len() - 1], times[0]].map(measure);
    println!("{name:<44}{median:>12.1}{worst:>12.1}{best:>12.1} {unit}");
    Ok(())
}

fn arguments() -> Result<Option<(PathBuf, Option<NonZeroUsize>)>, Failure> {
    let (mut model, mut threads) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--model" => model = arguments.next().map(PathBuf::from),
            "--threads" => threads = Some(arguments.next().ok_or("--threads N")?.parse()?),
            // Cargo's own.
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(model.map(|model| (model, threads)))
}
