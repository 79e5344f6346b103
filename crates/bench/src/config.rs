use std::fmt;
use std::time::Duration;

use crate::{Error, Target, Trace};

/// What to measure, with which load, and when to stop.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BenchConfig {
    /// The server.
    pub target: Target,
    /// The model's name; the first one that the server lists if there is none.
    pub model: Option<String>,
    /// The route to use. Default chat.
    pub api: Api,
    /// Whether answers are streamed. Default yes.
    pub stream: bool,
    /// What the requests are. Default 128 tokens in, 64 out.
    pub workload: Workload,
    /// When requests are sent. Default a closed loop of 8.
    pub arrival: Arrival,
    /// Whether an answer may end before its length is reached. By default the server is told to
    /// ignore the model's end of text, and another length is a failure.
    pub stop_at_eos: bool,
    /// Headers of every request, beside the usual ones.
    pub headers: Vec<(String, String)>,
    /// Fixes arrivals and prompts. Default 0.
    pub seed: u64,
    /// Requests to measure; the whole trace, or no limit, if there is none.
    pub requests: Option<u64>,
    /// For how long requests are sent; those under way are waited for. What was due in an open loop
    /// and could not be sent until a second after it is not sent any more, and the run is not
    /// valid. Without it and
    /// `requests`, a trace is sent whole and anything else for [`BenchConfig::DEFAULT_DURATION`].
    pub duration: Option<Duration>,
    /// Requests before the measurement, as a closed loop. Default 16.
    pub warmup_requests: u64,
    /// How long one request may take, connecting included. Default 600 s.
    pub timeout: Duration,
    /// Connections at a time, from 1 to [`BenchConfig::MOST_CONNECTIONS`]. A closed loop has as many as it has requests; with
    /// other arrivals a request that finds none free waits for one, which counts as its lag.
    /// Default 1,024.
    pub max_connections: usize,
    /// Bounds that make a request good; goodput counts those that keep them.
    pub slo: Slo,
    /// The lag (99th percentile) over which a run is not valid. Default 5 ms.
    pub max_lag: Duration,
    /// Processes whose CPU time is the server's; Linux only.
    pub server_pids: Vec<u32>,
}

impl BenchConfig {
    /// How long requests are sent if nothing else says when to stop.
    pub const DEFAULT_DURATION: Duration = Duration::from_secs(10);

    /// Most connections at a time, and so the most concurrency.
    pub const MOST_CONNECTIONS: usize = 100_000;

    /// The highest rate of an open loop.
    pub const MOST_PER_SECOND: f64 = 1e6;

    /// The defaults for a server.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            model: None,
            api: Api::Chat,
            stream: true,
            workload: Workload::Synthetic(Synthetic::default()),
            arrival: Arrival::Closed { concurrency: 8 },
            stop_at_eos: false,
            headers: Vec::new(),
            seed: 0,
            requests: None,
            duration: None,
            warmup_requests: 16,
            timeout: Duration::from_secs(600),
            max_connections: 1024,
            slo: Slo::default(),
            max_lag: Duration::from_millis(5),
            server_pids: Vec::new(),
        }
    }

    /// Checks the ranges, and what does not go together.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], naming the setting.
    pub fn validate(&self) -> Result<(), Error> {
        let fault = |message: &str| Err(Error::Config(message.to_owned()));
        match &self.workload {
            Workload::Synthetic(Synthetic {
                isl,
                osl,
                shared_prefix_tokens,
            }) => {
                if isl.is_bad() || osl.is_bad() {
                    return fault("lengths must be at least 1 and in order");
                }
                if *shared_prefix_tokens >= isl.min {
                    return fault("the shared prefix must be shorter than the prompt");
                }
            }
            Workload::Trace(_) => {}
        }
        match self.arrival {
            Arrival::Poisson { rate_per_second }
                if !(rate_per_second > 0.0 && rate_per_second <= Self::MOST_PER_SECOND) =>
            {
                return fault("the rate must be a number above 0 and at most 1,000,000");
            }
            Arrival::Timestamps { speedup } if !(speedup.is_finite() && speedup > 0.0) => {
                return fault("the speed-up must be a number above 0");
            }
            Arrival::Timestamps { .. } if !matches!(self.workload, Workload::Trace(_)) => {
                return fault("only a trace has times of arrival");
            }
            _ => {}
        }
        if self.requests == Some(0) || self.duration == Some(Duration::ZERO) {
            return fault("there is nothing to measure in no requests or no time");
        }
        for connections in [self.connections(), self.max_connections] {
            if !(1..=Self::MOST_CONNECTIONS).contains(&connections) {
                return fault("there can be from 1 to 100,000 connections");
            }
        }
        for (name, value) in &self.headers {
            let name_is_token = !name.is_empty()
                && (name.bytes())
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if !name_is_token || value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
                return Err(Error::Config(format!("{name:?} is no header")));
            }
        }
        Ok(())
    }

    /// Connections that the load needs at most.
    pub fn connections(&self) -> usize {
        match self.arrival {
            Arrival::Closed { concurrency } => concurrency,
            Arrival::Poisson { .. } | Arrival::Timestamps { .. } => self.max_connections,
        }
    }

    /// When to stop sending, with the default filled in.
    pub(crate) fn limits(&self) -> (Option<u64>, Option<Duration>) {
        let trace = match &self.workload {
            Workload::Trace(trace) => Some(trace.requests().len() as u64),
            Workload::Synthetic(_) => None,
        };
        let requests = match (self.requests, trace) {
            (Some(requests), Some(trace)) => Some(requests.min(trace)),
            (requests, trace) => requests.or(trace),
        };
        let duration = match requests {
            Some(_) => self.duration,
            None => self.duration.or(Some(Self::DEFAULT_DURATION)),
        };
        (requests, duration)
    }
}

/// A route of the OpenAI API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/chat/completions`, one user message.
    Chat,
    /// `/v1/completions`, one prompt.
    Completions,
}

impl Api {
    /// The route.
    pub fn route(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
        }
    }
}

/// What the requests are.
#[derive(Clone, Debug)]
pub enum Workload {
    /// Prompts of random words.
    Synthetic(Synthetic),
    /// The lengths and shared prefixes of a recorded load, again with random words.
    Trace(Trace),
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synthetic(synthetic) => {
                write!(f, "{} tokens in, {} out", synthetic.isl, synthetic.osl)?;
                match synthetic.shared_prefix_tokens {
                    0 => Ok(()),
                    tokens => write!(f, ", the first {tokens} shared"),
                }
            }
            Self::Trace(trace) => write!(f, "a trace of {} requests", trace.requests().len()),
        }
    }
}

/// Prompts of random words, each of them unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// Prompt tokens, as the server counts them.
    pub isl: Length,
    /// Tokens of the answer.
    pub osl: Length,
    /// Tokens at the beginning that all prompts have in common, within `isl`.
    pub shared_prefix_tokens: u32,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            isl: Length::fixed(128),
            osl: Length::fixed(64),
            shared_prefix_tokens: 0,
        }
    }
}

/// A number of tokens, drawn evenly from a range for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// The smallest, at least 1.
    pub min: u32,
    /// The largest.
    pub max: u32,
}

impl Length {
    /// Always the same.
    pub fn fixed(tokens: u32) -> Self {
        Self {
            min: tokens,
            max: tokens,
        }
    }

    fn is_bad(self) -> bool {
        self.min == 0 || self.max < self.min
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max.saturating_sub(self.min) {
            0 => write!(f, "{}", self.min),
            _ => write!(f, "{}-{}", self.min, self.max),
        }
    }
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// Always `concurrency` requests under way; the next is sent when one ends.
    Closed {
        /// From 1 to [`BenchConfig::MOST_CONNECTIONS`].
        concurrency: usize,
    },
    /// Independent arrivals, whatever the server does: an open loop with exponential gaps.
    Poisson {
        /// Arrivals per second on average; above 0, at most [`BenchConfig::MOST_PER_SECOND`].
        rate_per_second: f64,
    },
    /// An open loop with a trace's own times.
    Timestamps {
        /// 2 sends in half of the time.
        speedup: f64,
    },
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { concurrency } => write!(f, "closed loop of {concurrency}"),
            Self::Poisson { rate_per_second } => {
                write!(f, "Poisson arrivals, {rate_per_second} a second")
            }
            Self::Timestamps { speedup } => write!(f, "the trace's times, {speedup} times as fast"),
        }
    }
}

/// What makes a request good; bounds that are not given are kept by every request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slo {
    /// Most time to the first token.
    pub ttft: Option<Duration>,
    /// Most time from one token to the next, on average over the answer.
    pub itl: Option<Duration>,
}
