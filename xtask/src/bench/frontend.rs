//! `cargo xtask bench frontend`: the table of what the frontend costs and adds, over the mocker.
//!
//! Two processes: `forebay serve --engine mocker` and `forebay bench`, which reads the server's CPU
//! time. Each row runs [`Args::repeats`] times, the rows interleaved, so that a slow minute of a
//! shared machine does not fall on one row. The CPU figures include the mock engine and the hop to
//! it.

mod case;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::server::Server;
use crate::{process, workspace};
use case::{CASES, Case, Outcome};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each row is measured.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds that each load runs.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Only rows whose name contains this.
    filter: Option<String>,
}

/// Builds in release, measures every row and prints the table.
///
/// # Errors
/// If something does not build or run, or a request failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = workspace::root();
    process::run(process::cargo(&root).args(["build", "--locked", "--release"]))?;
    let bench = Bench {
        forebay: root.join("target/release/forebay"),
        seconds: args.seconds,
    };
    let filter = args.filter.as_deref().unwrap_or("");
    let cases: Vec<_> = CASES.iter().filter(|c| c.name.contains(filter)).collect();
    let mut outcomes: BTreeMap<&str, Vec<Outcome>> = BTreeMap::new();
    for repeat in 0..args.repeats {
        for case in &cases {
            eprintln!("{} of {}: {}", repeat + 1, args.repeats, case.name);
            let outcome = bench.measure(case);
            let outcome = outcome.with_context(|| format!("cannot measure {}", case.name))?;
            outcomes.entry(case.name).or_default().push(outcome);
        }
    }
    println!("| case | goal | median | spread | beside it |\n|---|---|---|---|---|");
    for case in cases {
        println!("{}", case.row(&outcomes[case.name]));
    }
    Ok(())
}

/// What measures.
struct Bench {
    forebay: PathBuf,
    seconds: f64,
}

impl Bench {
    fn measure(&self, case: &Case) -> Result<Outcome> {
        let (server, first_reply) = Server::start(&self.forebay, case.server)?;
        case.measure(self, &server, first_reply)
    }

    /// Runs `forebay bench` against a server and reads its report.
    fn report(&self, server: &Server, load: &[&str]) -> Result<Value> {
        let file = tempfile::NamedTempFile::new().context("cannot make a file for the report")?;
        let seconds = self.seconds.to_string();
        let pid = server.pid().to_string();
        let mut command = process::command(&self.forebay, Path::new("."));
        command
            .args(["bench", server.url(), "--duration", &seconds])
            .args(["--server-pid", &pid, "--quiet", "--allow-lag", "--json"])
            .arg(file.path())
            .args(load);
        process::stdout(&mut command)?;
        let text = std::fs::read(file.path()).context("cannot read the report")?;
        serde_json::from_slice(&text).context("the report is no JSON")
    }
}
