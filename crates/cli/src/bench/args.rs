use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use forebay_bench::{Api, Arrival, BenchConfig, Length, Slo, Synthetic, Target, Trace, Workload};

use crate::config;

/// The flags of `forebay bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The server's base URL, such as http://127.0.0.1:8000
    url: Target,

    /// The model's name [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Use /v1/completions in place of /v1/chat/completions
    #[arg(long)]
    completions: bool,

    /// Ask for whole answers in place of streams
    #[arg(long)]
    no_stream: bool,

    /// A header of every request; may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// An environment variable with the API key, sent as a bearer token
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,

    /// Closed loop: always N requests under way [default: 8]
    #[arg(long, value_name = "N", conflicts_with = "rate", help_heading = "Load")]
    concurrency: Option<usize>,

    /// Open loop: N requests a second on average, Poisson arrivals
    #[arg(long, value_name = "N", help_heading = "Load")]
    rate: Option<f64>,

    /// Replay a trace in Mooncake's format: its lengths, its shared prefixes and, unless
    /// --concurrency or --rate is given, its times
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    trace: Option<PathBuf>,

    /// Replay the trace so many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "trace",
          conflicts_with_all = ["concurrency", "rate"], help_heading = "Load")]
    speedup: f64,

    /// Requests to measure [default: the whole trace]
    #[arg(long, value_name = "N", help_heading = "Load")]
    requests: Option<u64>,

    /// Send for so long, then wait for what is under way [default: 10, unless --requests or
    /// --trace ends it]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Load")]
    duration: Option<Duration>,

    /// Requests before the measurement, not counted
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Load")]
    warmup: u64,

    /// Fixes arrivals and prompts. Two runs with one seed send the same prompts, which the
    /// server's prefix cache may know by then [default: another one every time]
    #[arg(long, help_heading = "Load")]
    seed: Option<u64>,

    /// Prompt tokens, as the server counts them: N or MIN-MAX
    #[arg(long, value_name = "TOKENS", value_parser = length, default_value = "128",
          conflicts_with = "trace", help_heading = "Requests")]
    isl: Length,

    /// Tokens of the answer: N or MIN-MAX
    #[arg(long, value_name = "TOKENS", value_parser = length, default_value = "64",
          conflicts_with = "trace", help_heading = "Requests")]
    osl: Length,

    /// Prompt tokens at the beginning that all requests share
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 0,
        conflicts_with = "trace",
        help_heading = "Requests"
    )]
    shared_prefix: u32,

    /// Let answers end before --osl, where the model ends them
    #[arg(long, help_heading = "Requests")]
    stop_at_eos: bool,

    /// How long one request may take
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600",
          help_heading = "Requests")]
    timeout: Duration,

    /// A request is good if its first token came in so many milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds, help_heading = "Judging")]
    slo_ttft_ms: Option<Duration>,

    /// A request is good if its tokens came so many milliseconds apart on average
    #[arg(long, value_name = "MS", value_parser = milliseconds, help_heading = "Judging")]
    slo_itl_ms: Option<Duration>,

    /// The generator's own lag (p99) from which on a run is not valid
    #[arg(long, value_name = "MS", value_parser = milliseconds, default_value = "5",
          help_heading = "Judging")]
    max_lag_ms: Duration,

    /// Exit 0 even if the run is not valid
    #[arg(long, help_heading = "Judging")]
    pub(super) allow_lag: bool,

    /// A process of the server, whose CPU time is reported; may be repeated (Linux)
    #[arg(long = "server-pid", value_name = "PID", help_heading = "Judging")]
    server_pids: Vec<u32>,

    /// Most connections of an open loop
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        value_parser = count(BenchConfig::MOST_CONNECTIONS as u64),
        help_heading = "Generator"
    )]
    max_connections: usize,

    /// Threads that generate the load
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = count(1024),
        help_heading = "Generator"
    )]
    threads: usize,

    /// Show no progress
    #[arg(long, help_heading = "Output")]
    pub(super) quiet: bool,

    /// Write the report as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,

    /// Write a picture of the run as SVG
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) plot: Option<PathBuf>,

    /// Write one line of JSON for each request
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) requests_jsonl: Option<PathBuf>,
}

impl BenchArgs {
    /// Threads of the runtime that generates the load.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.threads).expect("the command line takes 1 to 1024")
    }

    /// What to measure; reads the trace and the environment.
    pub(super) fn config(&self) -> Result<BenchConfig> {
        let mut config = BenchConfig::new(self.url.clone());
        config.model.clone_from(&self.model);
        if self.completions {
            config.api = Api::Completions;
        }
        config.stream = !self.no_stream;
        config.headers.clone_from(&self.headers);
        if let Some(name) = &self.api_key_env {
            let key = config::api_key(name)?;
            let header = ("authorization".to_owned(), format!("Bearer {key}"));
            config.headers.push(header);
        }
        config.workload = self.workload()?;
        config.arrival = match (self.concurrency, self.rate, &self.trace) {
            (Some(concurrency), ..) => Arrival::Closed { concurrency },
            (None, Some(rate_per_second), _) => Arrival::Poisson { rate_per_second },
            (None, None, Some(_)) => Arrival::Timestamps {
                speedup: self.speedup,
            },
            (None, None, None) => config.arrival,
        };
        config.requests = self.requests;
        config.duration = self.duration;
        config.warmup_requests = self.warmup;
        config.seed = self.seed.unwrap_or_else(seed_of_now);
        config.stop_at_eos = self.stop_at_eos;
        config.timeout = self.timeout;
        config.slo = Slo {
            ttft: self.slo_ttft_ms,
            itl: self.slo_itl_ms,
        };
        config.max_lag = self.max_lag_ms;
        config.server_pids.clone_from(&self.server_pids);
        config.max_connections = self.max_connections;
        config.validate()?;
        Ok(config)
    }

    fn workload(&self) -> Result<Workload> {
        let Some(path) = &self.trace else {
            return Ok(Workload::Synthetic(Synthetic {
                isl: self.isl,
                osl: self.osl,
                shared_prefix_tokens: self.shared_prefix,
            }));
        };
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let trace = Trace::parse(&text).with_context(|| name.to_string())?;
        Ok(Workload::Trace(trace))
    }
}

/// Short enough to be typed again.
fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64 % 1_000_000_000)
}

/// From 1 to `most`.
fn count(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME:VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn length(text: &str) -> Result<Length, &'static str> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let tokens = |text: &str| u32::from_str(text).ok().filter(|&tokens| tokens > 0);
    match (tokens(min), tokens(max)) {
        (Some(min), Some(max)) if min <= max => Ok(Length { min, max }),
        _ => Err("a length is N or MIN-MAX, from 1"),
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    duration(text, 1.0)
}

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    duration(text, 1e-3)
}

fn duration(text: &str, unit_seconds: f64) -> Result<Duration, &'static str> {
    /// A week; beyond it clocks of some systems do not add.
    const LONGEST_SECONDS: f64 = 604_800.0;
    let seconds = f64::from_str(text).map_err(|_| "not a number")? * unit_seconds;
    if seconds > 0.0 && seconds <= LONGEST_SECONDS {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("must be above 0 and at most a week")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(flags: &[&str]) -> Result<BenchConfig> {
        let line = ["forebay", "bench", "http://a:1"].iter().chain(flags);
        match Cli::try_parse_from(line)?.command {
            Command::Bench(args) => args.config(),
            _ => panic!("bench was asked for"),
        }
    }

    #[test]
    fn the_load_follows_from_the_flags() {
        let trace = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/mooncake/conversation_head.jsonl"
        );
        let arrival = |flags: &[&str]| parse(flags).unwrap().arrival;
        assert_eq!(arrival(&[]), Arrival::Closed { concurrency: 8 });
        assert_eq!(
            arrival(&["--concurrency", "3"]),
            Arrival::Closed { concurrency: 3 }
        );
        let rate_per_second = 2.5;
        assert_eq!(
            arrival(&["--rate", "2.5"]),
            Arrival::Poisson { rate_per_second }
        );
        let replay = ["--trace", trace, "--speedup", "4"];
        assert_eq!(arrival(&replay), Arrival::Timestamps { speedup: 4.0 });
        let closed = ["--trace", trace, "--concurrency", "3"];
        assert_eq!(arrival(&closed), Arrival::Closed { concurrency: 3 });
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (flags, says) in [
            (
                &["--rate", "1", "--concurrency", "1"][..],
                "cannot be used with",
            ),
            (&["--speedup", "2"], "--trace"),
            (&["--isl", "0"], "from 1"),
            (&["--isl", "9-3"], "from 1"),
            (&["--rate", "0"], "above 0"),
            (&["--duration", "0"], "above 0"),
            (&["--rate", "1e12"], "at most 1,000,000"),
            (&["--threads", "0"], "not in 1..=1024"),
            (&["--max-connections", "0"], "not in 1..=100000"),
            (&["--concurrency", "0"], "1 to 100,000"),
            (&["--shared-prefix", "128"], "shorter than the prompt"),
            (&["--header", "x"], "NAME:VALUE"),
            (
                &["--trace", "/does/not/exist"],
                "cannot read /does/not/exist",
            ),
            (
                &["--api-key-env", "FOREBAY_NO_SUCH_VARIABLE"],
                "FOREBAY_NO_SUCH_VARIABLE",
            ),
        ] {
            let error = format!("{:#}", parse(flags).unwrap_err());
            assert!(error.contains(says), "{flags:?}: {error}");
        }
    }

    #[test]
    fn headers_and_lengths_are_read() {
        let config = parse(&["--header", "X-Tenant: a:b", "--osl", "1-9"]).unwrap();
        assert_eq!(config.headers, [("x-tenant".to_owned(), "a:b".to_owned())]);
        let Workload::Synthetic(synthetic) = config.workload else {
            panic!("no trace was given");
        };
        assert_eq!(synthetic.osl, Length { min: 1, max: 9 });
    }
}
