use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Bench;
use crate::bench::server::Server;

/// No time in the engine: what is left is ours.
const ZERO: &[&str] = &["mocker.speed=0.0"];
/// An iteration every 6 ms, whatever is in it.
const PACED: &[&str] = &[
    "mocker.perf_model.kind=polynomial",
    "mocker.perf_model.fixed_seconds=0.006",
];

/// A row of the table.
pub(super) struct Case {
    pub(super) name: &'static str,
    goal: &'static str,
    unit: &'static str,
    pub(super) server: &'static [&'static str],
    what: What,
}

/// What a row measures.
enum What {
    /// A number of the report of one load; the generator's own share is shown beside it.
    Load {
        load: &'static [&'static str],
        /// The JSON pointer of the number.
        number: &'static str,
    },
    /// The 99th percentile of the end-to-end time at half of what the server can at most.
    HalfOfSaturation,
    StartToFirstReply,
    IdleMemory,
    IdleConnection,
    Binary,
}

/// What one run of a row gave.
pub(super) struct Outcome {
    value: f64,
    beside: String,
}

const PER_REQUEST: &str = "/server_cpu/microseconds_per_request";
const PER_TOKEN: &str = "/server_cpu/microseconds_per_output_token";

/// A load of one-token answers.
macro_rules! one_token {
    ($isl:literal, $concurrency:literal) => {
        &["--isl", $isl, "--osl", "1", "--concurrency", $concurrency]
    };
}

/// The table.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "CPU a request, ISL 128, OSL 1, 16 at a time",
        goal: "<= 120",
        unit: "us",
        server: ZERO,
        what: What::Load {
            load: one_token!("128", "16"),
            number: PER_REQUEST,
        },
    },
    Case {
        name: "CPU a request, ISL 128, OSL 1, 128 at a time",
        goal: "<= 120",
        unit: "us",
        server: ZERO,
        what: What::Load {
            load: one_token!("128", "128"),
            number: PER_REQUEST,
        },
    },
    Case {
        name: "CPU a request, ISL 8192, OSL 1, 16 at a time, tokenization included",
        goal: "<= 150 and the tokenization",
        unit: "us",
        server: ZERO,
        what: What::Load {
            load: one_token!("8192", "16"),
            number: PER_REQUEST,
        },
    },
    Case {
        name: "CPU a streamed token, every 6 ms, 16 streams",
        goal: "<= 12",
        unit: "us",
        server: PACED,
        what: What::Load {
            load: &["--isl", "128", "--osl", "256", "--concurrency", "16"],
            number: PER_TOKEN,
        },
    },
    Case {
        name: "CPU a streamed token, every 6 ms, 128 streams",
        goal: "<= 5",
        unit: "us",
        server: PACED,
        what: What::Load {
            load: &["--isl", "128", "--osl", "256", "--concurrency", "128"],
            number: PER_TOKEN,
        },
    },
    Case {
        name: "CPU a streamed token, bursts of 512",
        goal: "<= 2",
        unit: "us",
        server: ZERO,
        what: What::Load {
            load: &["--isl", "128", "--osl", "512", "--concurrency", "16"],
            number: PER_TOKEN,
        },
    },
    Case {
        name: "saturation, OSL 1",
        goal: ">= 8,000",
        unit: "req/s",
        server: ZERO,
        what: What::Load {
            load: one_token!("128", "64"),
            number: "/throughput/requests_per_second",
        },
    },
    Case {
        name: "saturation, bursts of 512",
        goal: ">= 400,000",
        unit: "tok/s",
        server: ZERO,
        what: What::Load {
            load: &["--isl", "128", "--osl", "512", "--concurrency", "16"],
            number: "/throughput/output_tokens_per_second",
        },
    },
    Case {
        name: "p99 end to end at half of saturation, OSL 1",
        goal: "<= 5",
        unit: "ms",
        server: ZERO,
        what: What::HalfOfSaturation,
    },
    Case {
        name: "a streamed answer of 16 tokens, one client, median",
        goal: "<= 1",
        unit: "ms",
        server: ZERO,
        what: What::Load {
            load: &["--isl", "128", "--osl", "16", "--concurrency", "1"],
            number: "/latency_ms/e2e/p50",
        },
    },
    Case {
        name: "TTFT added, ISL 128, one client, minimum",
        goal: "<= 0.3",
        unit: "ms",
        server: ZERO,
        what: What::Load {
            load: one_token!("128", "1"),
            number: "/latency_ms/ttft/min",
        },
    },
    Case {
        name: "TTFT added, ISL 8192, one client, minimum",
        goal: "<= 0.9",
        unit: "ms",
        server: ZERO,
        what: What::Load {
            load: one_token!("8192", "1"),
            number: "/latency_ms/ttft/min",
        },
    },
    Case {
        name: "start to the first reply",
        goal: "<= 0.1",
        unit: "s",
        server: ZERO,
        what: What::StartToFirstReply,
    },
    Case {
        name: "resident memory, idle after one reply",
        goal: "<= 20",
        unit: "MB",
        server: ZERO,
        what: What::IdleMemory,
    },
    Case {
        name: "memory an idle connection, of 1,000",
        goal: "<= 6",
        unit: "KB",
        server: ZERO,
        what: What::IdleConnection,
    },
    Case {
        name: "the binary, stripped",
        goal: "<= 30",
        unit: "MB",
        server: ZERO,
        what: What::Binary,
    },
];

impl Case {
    /// Measures it once, against a server that has just given its first reply.
    ///
    /// # Errors
    /// If it cannot be measured, or a request failed.
    pub(super) fn measure(
        &self,
        bench: &Bench,
        server: &Server,
        first_reply: Duration,
    ) -> Result<Outcome> {
        match self.what {
            What::Load { load, number } => {
                let report = bench.report(server, load)?;
                outcome(&report, number)
            }
            What::HalfOfSaturation => {
                let most = bench.report(server, one_token!("128", "64"))?;
                let most = at(&most, "/throughput/requests_per_second")?;
                let rate = (most / 2.0).round().to_string();
                let load = ["--isl", "128", "--osl", "1", "--rate", &rate];
                let report = bench.report(server, &load)?;
                let mut outcome = outcome(&report, "/latency_ms/e2e/p99")?;
                outcome.beside = format!(
                    "{rate} req/s; median {:.2} ms, the generator's own lag p99 {:.2} ms{}",
                    at(&report, "/latency_ms/e2e/p50")?,
                    at(&report, "/generator/lag_ms/p99")?,
                    behind(&report),
                );
                Ok(outcome)
            }
            What::StartToFirstReply => Ok(alone(first_reply.as_secs_f64())),
            What::IdleMemory => Ok(alone(server.resident_bytes()? as f64 / 1e6)),
            What::IdleConnection => {
                const CONNECTIONS: usize = 1000;
                let before = server.resident_bytes()?;
                let open: Vec<_> = (0..CONNECTIONS)
                    .map(|_| server.connect())
                    .collect::<Result<_>>()?;
                // The last one's reply says that all were accepted.
                server.ask()?;
                let after = server.resident_bytes()?;
                drop(open);
                Ok(alone(
                    after.saturating_sub(before) as f64 / 1e3 / CONNECTIONS as f64,
                ))
            }
            What::Binary => {
                let size = std::fs::metadata(&bench.forebay)
                    .context("no binary")?
                    .len();
                Ok(alone(size as f64 / 1e6))
            }
        }
    }

    /// Its row: median and spread.
    pub(super) fn row(&self, outcomes: &[Outcome]) -> String {
        let mut sorted: Vec<_> = outcomes.iter().collect();
        sorted.sort_by(|a, b| a.value.total_cmp(&b.value));
        let median = sorted[sorted.len() / 2];
        let (least, most) = (sorted[0].value, sorted[sorted.len() - 1].value);
        format!(
            "| {} | {} {unit} | {} {unit} | {} - {} | {} |",
            self.name,
            self.goal,
            figure(median.value),
            figure(least),
            figure(most),
            median.beside,
            unit = self.unit,
        )
    }
}

/// A number that nothing stands beside.
fn alone(value: f64) -> Outcome {
    Outcome {
        value,
        beside: String::new(),
    }
}

/// A number of a report in which nothing failed.
fn outcome(report: &Value, pointer: &str) -> Result<Outcome> {
    let failed = at(report, "/requests/failed")?;
    if failed > 0.0 {
        bail!("{failed} requests failed: {}", report["failures"]);
    }
    Ok(Outcome {
        value: at(report, pointer)?,
        beside: format!(
            "{} req/s, {} tok/s; the generator took {:.0} % of its CPU{}",
            figure(at(report, "/throughput/requests_per_second")?),
            figure(at(report, "/throughput/output_tokens_per_second")?),
            100.0 * at(report, "/generator/cpu_share")?,
            behind(report),
        ),
    })
}

/// Whether the numbers are the generator's rather than the server's.
fn behind(report: &Value) -> &'static str {
    match report["valid"].as_bool() {
        Some(true) => "",
        _ => " and fell behind",
    }
}

fn at(report: &Value, pointer: &str) -> Result<f64> {
    let number = report.pointer(pointer).and_then(Value::as_f64);
    number.with_context(|| format!("the report has no number at {pointer}"))
}

/// Three digits, and thousands apart.
fn figure(value: f64) -> String {
    match value {
        v if v >= 1000.0 => {
            let digits = format!("{v:.0}");
            let mut apart = String::new();
            for (n, digit) in digits.chars().enumerate() {
                if n > 0 && (digits.len() - n) % 3 == 0 {
                    apart.push(',');
                }
                apart.push(digit);
            }
            apart
        }
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_and_the_spread() {
        let outcomes = [3.0, 1234.5, 20.0].map(alone);
        let case = Case {
            name: "x",
            goal: "<= 5",
            unit: "us",
            server: ZERO,
            what: What::Binary,
        };
        assert_eq!(
            case.row(&outcomes),
            "| x | <= 5 us | 20.0 us | 3.00 - 1,234 |  |"
        );
    }

    #[test]
    fn names_are_of_one_case_each() {
        for (n, case) in CASES.iter().enumerate() {
            assert!(CASES[..n].iter().all(|other| other.name != case.name));
        }
    }
}
