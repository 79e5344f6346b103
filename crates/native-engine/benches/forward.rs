//! How fast a model runs, and what would be the limit.
//!
//! `cargo bench -p forebay-native-engine --bench forward -- --model PATH [--kernel NAME] [--threads N]`

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_native_engine::{
    Kernel, KvMemory, Logits, LogitsWanted, Model, Runner, RunnerOptions, SequenceStep,
};
use forebay_tokens::{BlockId, BlockSize, TokenId};

const BLOCK_TOKENS: u32 = 16;
const PROMPT_TOKENS: usize = 404;
const CACHED_TOKENS: usize = 400;
/// Blocks of one sequence: enough for the prompt and what is decoded after it.
const SEQUENCE_BLOCKS: usize = 40;
const DECODED_TOKENS: usize = 64;
const REPEATS: usize = 7;

struct Arguments {
    model: PathBuf,
    options: RunnerOptions,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(arguments) = arguments()? else {
        println!("forward: give --model PATH to run it");
        return Ok(());
    };
    let begin = Instant::now();
    let model = Arc::new(Model::load(&arguments.model)?);
    let loaded = begin.elapsed();
    let layout = model.kv_layout(BlockSize::new(BLOCK_TOKENS)?);
    let memory = KvMemory::new(layout, 8 * SEQUENCE_BLOCKS)?;
    let mut runner = Runner::new(Arc::clone(&model), memory, arguments.options)?;

    let threads = arguments.options.threads;
    let bandwidth = read_bandwidth(threads);
    let weights = model.bytes_per_token();
    println!(
        "model    {}",
        model.metadata().name.as_deref().unwrap_or("unnamed")
    );
    println!("kernel   {}, {threads} threads", arguments.options.kernel);
    println!("load     {:.2} s", loaded.as_secs_f64());
    println!(
        "memory   {:.1} GB/s, plain reads by all threads",
        bandwidth / 1e9
    );
    println!(
        "weights  {:.1} MB a token: {:.0} tok/s at that rate",
        weights as f64 / 1e6,
        bandwidth / weights as f64
    );
    println!();
    println!(
        "{:<34}{:>12}{:>12}{:>12}",
        "case", "median", "worst", "best"
    );

    let prompt: Vec<TokenId> = prompt_of(model.shape().vocabulary, 1);
    let rate = |tokens: usize| move |time: Duration| tokens as f64 / time.as_secs_f64();
    report("prefill, 404 tokens", "tok/s", rate(PROMPT_TOKENS), || {
        run(&mut runner, &[&prompt], 0)
    });
    report(
        "first token, 400 of 404 cached",
        "ms",
        |time| time.as_secs_f64() * 1e3,
        || run(&mut runner, &[&prompt[CACHED_TOKENS..]], CACHED_TOKENS),
    );
    for sequences in [1, 2, 4, 8] {
        let prompts: Vec<Vec<TokenId>> = (0..sequences)
            .map(|seed| prompt_of(model.shape().vocabulary, seed))
            .collect();
        for (number, prompt) in prompts.iter().enumerate() {
            run_at(&mut runner, &[prompt], 0, number);
        }
        let name = format!("decode, {sequences} sequences at 404 tokens");
        report(&name, "tok/s", rate(sequences * DECODED_TOKENS), || {
            let begin = Instant::now();
            for position in PROMPT_TOKENS..PROMPT_TOKENS + DECODED_TOKENS {
                let tokens: Vec<&[TokenId]> = prompts.iter().map(|prompt| &prompt[..1]).collect();
                run(&mut runner, &tokens, position);
            }
            begin.elapsed()
        });
    }
    Ok(())
}

fn arguments() -> Result<Option<Arguments>, Box<dyn std::error::Error>> {
    let mut options = RunnerOptions::default();
    let mut model = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--model" => model = Some(PathBuf::from(value()?)),
            "--threads" => options.threads = value()?.parse::<NonZeroUsize>()?,
            "--kernel" => {
                let name = value()?;
                let kernel = Kernel::available()
                    .into_iter()
                    .find(|kernel| kernel.name() == name);
                options.kernel = kernel.ok_or(format!("this CPU has no kernel {name}"))?;
            }
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(model.map(|model| Arguments { model, options }))
}

/// Runs a case once to warm up and then [`REPEATS`] times, and prints median and range.
fn report(
    name: &str,
    unit: &str,
    figure: impl Fn(Duration) -> f64,
    mut case: impl FnMut() -> Duration,
) {
    case();
    let mut times: Vec<Duration> = (0..REPEATS).map(|_| case()).collect();
    times.sort_unstable();
    let [best, median, worst] = [0, REPEATS / 2, REPEATS - 1].map(|at| figure(times[at]));
    println!("{name:<34}{median:>12.1}{worst:>12.1}{best:>12.1} {unit}");
}

fn run(runner: &mut Runner, tokens: &[&[TokenId]], start: usize) -> Duration {
    run_at(runner, tokens, start, 0)
}

/// One step: sequence `i` uses the blocks of place `first + i`.
fn run_at(runner: &mut Runner, tokens: &[&[TokenId]], start: usize, first: usize) -> Duration {
    let blocks: Vec<BlockId> = (0..8 * SEQUENCE_BLOCKS as u32).map(BlockId).collect();
    let work: Vec<SequenceStep<'_>> = (first..)
        .zip(tokens)
        .map(|(place, tokens)| SequenceStep {
            tokens,
            start,
            blocks: &blocks[place * SEQUENCE_BLOCKS..][..SEQUENCE_BLOCKS],
            logits: LogitsWanted::Last,
        })
        .collect();
    let mut logits = Logits::default();
    let begin = Instant::now();
    runner.step(&work, &mut logits).expect("the work is valid");
    black_box(logits.last(0));
    begin.elapsed()
}

fn prompt_of(vocabulary: usize, seed: usize) -> Vec<TokenId> {
    let vocabulary = vocabulary as u32;
    (0..PROMPT_TOKENS as u32)
        .map(|i| (i * 7_919 + seed as u32 * 104_729) % vocabulary)
        .collect()
}

/// Bytes a second that all threads together read from memory that no cache of theirs holds.
fn read_bandwidth(threads: NonZeroUsize) -> f64 {
    const BYTES: usize = 256 << 20;
    let data: Vec<u64> = (0..(BYTES / 8) as u64).collect();
    let pass = || {
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for part in data.chunks(data.len().div_ceil(threads.get())) {
                scope.spawn(move || {
                    let sums =
                        part.as_chunks::<16>()
                            .0
                            .iter()
                            .fold([0u64; 16], |mut sums, line| {
                                sums.iter_mut().zip(line).for_each(|(sum, x)| *sum ^= x);
                                sums
                            });
                    black_box(sums);
                });
            }
        });
        BYTES as f64 / begin.elapsed().as_secs_f64()
    };
    (0..5).map(|_| pass()).fold(0.0, f64::max)
}
