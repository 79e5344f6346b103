//! `cargo xtask bench client`: `forebay bench` and an independent client (AIPerf) measure the same
//! server under the same load, and the numbers are put side by side.
//!
//! Each run has a server of its own; the clients take turns, so that a slow minute of a shared
//! machine falls on both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::server::Server;
use crate::{process, workspace};

/// The independent client.
const AIPERF: &str = "aiperf==0.13.0";

/// Words of a prompt; the chat template adds some tokens.
const PROMPT_WORDS: usize = 120;

/// Tokens of an answer.
const OUTPUT_TOKENS: &str = "64";

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each load is measured by each client.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Requests of each run.
    #[arg(long, default_value_t = 300)]
    requests: usize,
}

/// A load that both clients are asked for.
struct Load {
    name: &'static str,
    forebay: &'static [&'static str],
    aiperf: &'static [&'static str],
}

const LOADS: &[Load] = &[
    Load {
        name: "closed loop of 8",
        forebay: &["--concurrency", "8"],
        aiperf: &["--concurrency", "8"],
    },
    Load {
        name: "Poisson arrivals, 10 a second",
        forebay: &["--rate", "10"],
        aiperf: &["--request-rate", "10", "--arrival-pattern", "poisson"],
    },
];

/// A number that both report: its name, and where it stands in each report.
const NUMBERS: &[(&str, &str, &str)] = &[
    (
        "requests/s",
        "/throughput/requests_per_second",
        "/request_throughput/avg",
    ),
    (
        "output tokens/s",
        "/throughput/output_tokens_per_second",
        "/output_token_throughput/avg",
    ),
    (
        "TTFT p50, ms",
        "/latency_ms/ttft/p50",
        "/time_to_first_token/p50",
    ),
    (
        "TTFT p99, ms",
        "/latency_ms/ttft/p99",
        "/time_to_first_token/p99",
    ),
    (
        "TPOT mean, ms",
        "/latency_ms/tpot/mean",
        "/inter_token_latency/avg",
    ),
    (
        "end to end p50, ms",
        "/latency_ms/e2e/p50",
        "/request_latency/p50",
    ),
    (
        "end to end p99, ms",
        "/latency_ms/e2e/p99",
        "/request_latency/p99",
    ),
];

/// Builds in release, installs the other client beside the build, and prints one table a load.
///
/// # Errors
/// If something does not build, install or run, or a request failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = workspace::root();
    process::run(process::cargo(&root).args(["build", "--locked", "--release"]))?;
    let folder = root.join("target/xtask/bench-client");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let clients = Clients {
        forebay: root.join("target/release/forebay"),
        aiperf: install(&folder)?,
        folder,
        requests: args.requests.to_string(),
    };
    clients.write_prompts(args.requests)?;
    for load in LOADS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for repeat in 1..=args.repeats {
            eprintln!("{repeat} of {}: {}", args.repeats, load.name);
            let report = clients.aiperf(load)?;
            let input_tokens = at(&report, "/usage_prompt_tokens/avg")?.round();
            theirs.push(report);
            ours.push(clients.forebay(load, &input_tokens.to_string())?);
        }
        println!(
            "\n| {} | `forebay bench` | AIPerf |\n|---|---|---|",
            load.name
        );
        for (name, in_ours, in_theirs) in NUMBERS {
            let (ours, theirs) = (cell(&ours, in_ours)?, cell(&theirs, in_theirs)?);
            println!("| {name} | {ours} | {theirs} |");
        }
        let lag = cell(&ours, "/generator/lag_ms/p99")?;
        println!("| own lag p99, ms | {lag} | not told |");
    }
    Ok(())
}

/// Both of them, and where they keep their files.
struct Clients {
    forebay: PathBuf,
    aiperf: PathBuf,
    folder: PathBuf,
    requests: String,
}

impl Clients {
    /// The prompts of the other client, and the tokenizer without which it does not start: every
    /// word of them is one token of the mocker's.
    fn write_prompts(&self, requests: usize) -> Result<()> {
        let syllables: Vec<String> = "bcdfghjklmnprstvwxyz"
            .chars()
            .flat_map(|consonant| {
                "aeiou"
                    .chars()
                    .map(move |vowel| format!("{consonant}{vowel}"))
            })
            .collect();
        let words: Vec<String> = (syllables.iter())
            .flat_map(|first| {
                syllables
                    .iter()
                    .map(move |second| format!("{first}{second}"))
            })
            .collect();
        let mut lines = String::new();
        for number in 0..requests * 2 {
            // Different from their first word, and never a step apart in the list.
            let picked = (0..PROMPT_WORDS).map(|place| number + place * (7 * number + 11));
            let prompt = picked.fold(String::new(), |mut prompt, index| {
                let word = &words[index % words.len()];
                write!(prompt, " {word}").expect("a String takes every word");
                prompt
            });
            writeln!(lines, "{}", json!({"text": prompt})).expect("a String takes every line");
        }
        let vocabulary: serde_json::Map<String, Value> = std::iter::once("[UNK]")
            .chain(words.iter().map(String::as_str))
            .enumerate()
            .map(|(id, word)| (word.to_owned(), json!(id)))
            .collect();
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        });
        let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"});
        let folder = self.folder.join("tokenizer");
        std::fs::create_dir_all(&folder).context("cannot make a folder for the tokenizer")?;
        for (path, text) in [
            (self.folder.join("prompts.jsonl"), lines),
            (folder.join("tokenizer.json"), tokenizer.to_string()),
            (folder.join("tokenizer_config.json"), config.to_string()),
        ] {
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn aiperf(&self, load: &Load) -> Result<Value> {
        let (server, _) = Server::start(&self.forebay, &[])?;
        let report = self.folder.join("aiperf");
        if report.exists() {
            std::fs::remove_dir_all(&report).context("cannot remove the last report")?;
        }
        let mut command = process::command(&self.aiperf, &self.folder);
        command
            .args(["profile", "--model", "mocker", "--url", server.url()])
            .args([
                "--endpoint-type",
                "chat",
                "--streaming",
                "--use-server-token-count",
            ])
            .args([
                "--input-file",
                "prompts.jsonl",
                "--custom-dataset-type",
                "single_turn",
            ])
            .args(["--tokenizer", "tokenizer", "--osl", OUTPUT_TOKENS])
            .args(["--extra-inputs", "ignore_eos:true"])
            .args(["--extra-inputs", &format!("min_tokens:{OUTPUT_TOKENS}")])
            .args([
                "--request-count",
                &self.requests,
                "--warmup-request-count",
                "16",
            ])
            .args(["--ui", "none", "--artifact-dir", "aiperf"])
            .args(load.aiperf);
        process::stdout(&mut command)?;
        read(&report.join("profile_export_aiperf.json"))
    }

    fn forebay(&self, load: &Load, input_tokens: &str) -> Result<Value> {
        let (server, _) = Server::start(&self.forebay, &[])?;
        let report = self.folder.join("forebay.json");
        let mut command = process::command(&self.forebay, &self.folder);
        command
            .args([
                "bench",
                server.url(),
                "--isl",
                input_tokens,
                "--osl",
                OUTPUT_TOKENS,
            ])
            .args(["--requests", &self.requests, "--warmup", "16", "--quiet"])
            .args(["--json", "forebay.json", "--allow-lag"])
            .args(load.forebay);
        process::stdout(&mut command)?;
        read(&report)
    }
}

/// An environment with the other client; the one of before if there is one.
fn install(folder: &Path) -> Result<PathBuf> {
    let environment = folder.join(AIPERF);
    let program = environment.join("bin/aiperf");
    if !program.exists() {
        let mut make = process::command("python3", folder);
        process::run(make.args(["-m", "venv", "--clear"]).arg(&environment))?;
        let mut pip = process::command(environment.join("bin/python"), folder);
        process::run(pip.args(["-m", "pip", "install", "--quiet", AIPERF]))?;
    }
    Ok(program)
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("no report in {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

fn at(report: &Value, pointer: &str) -> Result<f64> {
    let number = report.pointer(pointer).and_then(Value::as_f64);
    number.with_context(|| format!("a report has no number at {pointer}"))
}

/// Median and spread of a number.
fn cell(reports: &[Value], pointer: &str) -> Result<String> {
    let numbers = reports.iter().map(|report| at(report, pointer));
    let mut numbers = numbers.collect::<Result<Vec<_>>>()?;
    numbers.sort_by(f64::total_cmp);
    let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
    Ok(format!(
        "{:.1} ({least:.1} - {most:.1})",
        numbers[numbers.len() / 2]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_median_and_the_spread() {
        let reports = [3.0, 1.0, 2.04].map(|number| json!({"a": {"b": number}}));
        assert_eq!(
            cell(&reports, "/a/b").ok().as_deref(),
            Some("2.0 (1.0 - 3.0)")
        );
        assert!(cell(&reports, "/a/c").is_err());
    }
}
