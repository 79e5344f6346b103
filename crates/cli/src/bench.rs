//! `forebay bench`: the load generator at the command line.

mod args;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use forebay_bench::{Measured, Phase, Progress, RequestRecord};
use forebay_frontend::command::make_room;
use forebay_observability::Registry;
use forebay_runtime::{Tasks, signals};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

pub(crate) use args::BenchArgs;

use crate::models::Interrupted;

/// What a run that is not valid exits with.
const NOT_VALID: u8 = 3;

/// What flags that do not go together exit with, as those that are none do.
const WRONG_FLAGS: u8 = 2;

/// What a command exits with that failed.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(forebay_bench::Error::Config(_)) => WRONG_FLAGS,
        _ => 1,
    }
}

/// Measures and reports; `print` shows the table. Returns the exit code.
pub(crate) async fn run(args: BenchArgs, print: impl Fn(&str) -> io::Result<()>) -> Result<u8> {
    let config = args.config()?;
    let connections = config.connections();
    let room = make_room(connections);
    ensure!(
        room >= connections,
        "the system allows this process no more than {room} connections"
    );
    // A file that cannot be written is said before anything is measured.
    let json = create(args.json.as_deref())?;
    let plot = create(args.plot.as_deref())?;
    let jsonl = create(args.requests_jsonl.as_deref())?;

    let tasks = Tasks::new(&Registry::new());
    let cancel = CancellationToken::new();
    let progress = Arc::new(Bar::new(args.quiet));
    let mut signals = signals()?;
    let mut interrupted = None;
    let running = forebay_bench::run(&config, &tasks, cancel.clone(), progress.clone());
    tokio::pin!(running);
    let measured = loop {
        tokio::select! {
            measured = &mut running => break measured,
            Some(signal) = signals.next() => {
                // The first ends the run with what there is, the second ends it at once.
                if interrupted.replace(signal).is_some() {
                    std::process::exit(signal.exit_code().into());
                }
                cancel.cancel();
            }
        }
    };
    progress.bar.finish_and_clear();
    let measured = match (measured, interrupted) {
        (Err(forebay_bench::Error::Interrupted), Some(signal)) => {
            return Err(Interrupted(signal).into());
        }
        (measured, _) => measured?,
    };

    print(&measured.report.to_string())?;
    write(json, plot, jsonl, &measured)?;
    let report = &measured.report;
    Ok(match interrupted {
        Some(signal) => signal.exit_code(),
        None if report.requests.completed == 0 => 1,
        None if !report.valid && !args.allow_lag => NOT_VALID,
        None => 0,
    })
}

type Output = Option<BufWriter<File>>;

fn create(path: Option<&Path>) -> Result<Output> {
    path.map(|path| {
        let file = File::create(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(BufWriter::new(file))
    })
    .transpose()
}

fn write(json: Output, plot: Output, jsonl: Output, measured: &Measured) -> Result<()> {
    if let Some(mut file) = json {
        serde_json::to_writer_pretty(&mut file, &measured.report)?;
        writeln!(file)?;
        file.flush()?;
    }
    if let Some(mut file) = plot {
        let svg = forebay_bench::plot(&measured.report, &measured.records);
        file.write_all(svg.as_bytes())?;
        file.flush()?;
    }
    if let Some(mut file) = jsonl {
        for record in &measured.records {
            write_line(&mut file, record)?;
        }
        file.flush()?;
    }
    Ok(())
}

fn write_line(file: &mut BufWriter<File>, record: &RequestRecord) -> Result<()> {
    serde_json::to_writer(&mut *file, record)?;
    writeln!(file)?;
    Ok(())
}

/// Shows on a terminal's stderr how far the run is; elsewhere nothing.
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new(quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::no_length()
        };
        Self { bar }
    }

    /// Begins again at 0 of `requests`, if their number is known.
    fn begin(&self, what: String, requests: Option<u64>) {
        let template = match requests {
            Some(_) => "{msg} {bar:30} {pos} of {len}, {per_sec}",
            None => "{msg} {pos} requests, {per_sec}, {elapsed}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        self.bar.set_style(style);
        self.bar.set_position(0);
        self.bar.reset();
        if let Some(requests) = requests {
            self.bar.set_length(requests);
        }
        self.bar.set_message(what);
    }
}

impl Progress for Bar {
    fn began(&self, phase: Phase) {
        match phase {
            Phase::WarmUp { requests } => self.begin("warming up".into(), Some(requests)),
            Phase::Measure { requests, duration } => {
                let time = duration.as_ref().map(Duration::as_secs_f64);
                let what =
                    time.map_or("measuring".into(), |time| format!("measuring for {time} s"));
                self.begin(what, requests);
            }
            _ => self.begin("asking the server".into(), None),
        }
    }

    fn ended(&self, _: bool) {
        self.bar.inc(1);
    }
}
