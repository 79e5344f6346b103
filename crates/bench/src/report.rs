use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::config::Slo;
use crate::failure::FailureClass;
use crate::record::RequestRecord;
use crate::samples::{Distribution, Samples};

/// What came out of a run: the JSON report is this type.
///
/// Keys are only ever added; what changes or goes gets a new `schema`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `forebay-bench/1`.
    pub schema: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// What was measured, and with which load.
    pub run: RunInfo,
    /// Whether the numbers are the server's, and not the generator's.
    pub valid: bool,
    /// Why they are not.
    pub invalid_reasons: Vec<String>,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// From the start of the measurement to the end of the last request.
    pub duration_seconds: f64,
    /// How many requests there were.
    pub requests: RequestCounts,
    /// Failures by cause, the most frequent first.
    pub failures: Vec<FailureCount>,
    /// Latencies of the requests that did not fail.
    pub latency_ms: Latencies,
    /// Tokens of the requests that did not fail.
    pub tokens: Tokens,
    /// How much was done in a second.
    pub throughput: Throughput,
    /// The generator's own share.
    pub generator: GeneratorReport,
    /// CPU time of the server's processes, if they were named.
    pub server_cpu: Option<ServerCpu>,
}

/// What was measured, and with which load.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunInfo {
    /// The server's base URL.
    pub url: String,
    /// The model's name.
    pub model: String,
    /// `chat` or `completions`.
    pub api: &'static str,
    /// Whether answers were streamed.
    pub stream: bool,
    /// Requests: `128 tokens in, 64 out`.
    pub workload: String,
    /// When they were sent: `closed loop of 8`.
    pub arrival: String,
    /// What fixed arrivals and prompts.
    pub seed: u64,
    /// Whether answers had to have the length that was asked for.
    pub exact_length: bool,
    /// Tokens a word, from the probes; none if the server does not count.
    pub tokens_per_word: Option<f64>,
    /// Tokens that the chat template adds, from the probes.
    pub overhead_tokens: Option<f64>,
    /// When it began, in seconds since 1970.
    pub started_unix_seconds: u64,
}

/// How many requests there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestCounts {
    /// Answered in full.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Under way when the run was interrupted.
    pub unfinished: u64,
    /// Due within the duration of an open loop, and not sent within a second after it.
    pub unsent: u64,
    /// Completed within the bounds of the SLO; none if there are no bounds.
    pub good: Option<u64>,
}

/// Failures of one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FailureCount {
    /// In which way.
    pub class: FailureClass,
    /// More of it in few words.
    pub detail: String,
    /// How many.
    pub count: u64,
}

/// Latencies, each in milliseconds; none where nothing was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Latencies {
    /// To the first token.
    pub ttft: Option<Distribution>,
    /// From one part of a stream to the next, all of them.
    pub itl: Option<Distribution>,
    /// From token to token after the first, a request's mean.
    pub tpot: Option<Distribution>,
    /// To the end of the answer.
    pub e2e: Option<Distribution>,
}

/// Tokens of the requests that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tokens {
    /// Whether the server counted them; otherwise parts of streams are counted, and prompts not.
    pub counted_by_server: bool,
    /// Prompt tokens.
    pub input: u64,
    /// Those of them that came from a cache; none if the server does not say.
    pub cached: Option<u64>,
    /// Tokens of answers.
    pub output: u64,
    /// Parts of streams with text.
    pub content_chunks: u64,
}

/// How much was done in a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Throughput {
    /// Requests that completed.
    pub requests_per_second: f64,
    /// Requests that completed within the bounds of the SLO; none if there are no bounds.
    pub good_requests_per_second: Option<f64>,
    /// Prompt tokens.
    pub input_tokens_per_second: f64,
    /// Tokens of answers.
    pub output_tokens_per_second: f64,
}

/// The generator's own share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GeneratorReport {
    /// How late requests were sent, in milliseconds. In a closed loop, how late the generator's
    /// own timer was, which says how late it saw what arrived.
    pub lag_ms: Option<Distribution>,
    /// The bound on its 99th percentile.
    pub max_lag_ms: f64,
    /// CPU time, user and system.
    pub cpu_seconds: f64,
    /// That over the time and the threads that it had: 1 is saturated.
    pub cpu_share: f64,
    /// Threads that generate.
    pub threads: usize,
    /// Most requests under way at a time.
    pub max_in_flight: u64,
}

/// CPU time of the server's processes while requests were measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerCpu {
    /// User and system time.
    pub seconds: f64,
    /// That over all requests, failed ones too.
    pub microseconds_per_request: f64,
    /// That over the tokens of answers.
    pub microseconds_per_output_token: f64,
}

/// What the shell saw around the records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) unfinished: u64,
    pub(crate) unsent: u64,
    pub(crate) interrupted: bool,
    pub(crate) lag: &'a Samples,
    pub(crate) max_lag: Duration,
    pub(crate) cpu: Duration,
    pub(crate) server_cpu: Option<Duration>,
    /// For how long CPU time was taken.
    pub(crate) elapsed: Duration,
    pub(crate) threads: usize,
    pub(crate) max_in_flight: u64,
}

/// The share of its CPU at which the generator counts as saturated.
const SATURATED: f64 = 0.9;

impl Report {
    pub(crate) fn new(
        run: RunInfo,
        slo: Slo,
        records: &[RequestRecord],
        gaps: &Samples,
        around: Surroundings<'_>,
    ) -> Self {
        let mut ttft = Samples::default();
        let mut tpot = Samples::default();
        let mut e2e = Samples::default();
        let mut tokens = Tokens {
            counted_by_server: false,
            input: 0,
            cached: None,
            output: 0,
            content_chunks: 0,
        };
        let mut failures = BTreeMap::<_, u64>::new();
        let (mut completed, mut good) = (0, 0);
        let mut duration_seconds = 0.0_f64;
        for record in records {
            duration_seconds = duration_seconds.max(record.end_seconds);
            if let Some(failure) = &record.failure {
                *failures.entry(failure).or_default() += 1;
                continue;
            }
            completed += 1;
            good += u64::from(is_good(record, slo));
            for (samples, sample) in [
                (&mut ttft, record.ttft_ms),
                (&mut tpot, record.tpot_ms),
                (&mut e2e, record.e2e_ms),
            ] {
                if let Some(ms) = sample {
                    samples.record(Duration::from_secs_f64(ms / 1e3));
                }
            }
            tokens.counted_by_server |= record.input_tokens.is_some();
            tokens.input += u64::from(record.input_tokens.unwrap_or(0));
            tokens.output += u64::from(record.output_tokens);
            tokens.content_chunks += u64::from(record.content_chunks);
            if let Some(cached) = record.cached_tokens {
                *tokens.cached.get_or_insert(0) += u64::from(cached);
            }
        }
        let failed = failures.values().sum();
        let mut failures: Vec<FailureCount> = failures
            .into_iter()
            .map(|(failure, count)| FailureCount {
                class: failure.class,
                detail: failure.detail.clone(),
                count,
            })
            .collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));

        let per_second = |count: u64| per(count as f64, duration_seconds);
        let has_slo = slo != Slo::default();
        let generator = generator(&around);
        let invalid_reasons = invalid_reasons(&generator, around.unsent);
        Self {
            schema: "forebay-bench/1",
            version: env!("CARGO_PKG_VERSION"),
            run,
            valid: invalid_reasons.is_empty(),
            invalid_reasons,
            interrupted: around.interrupted,
            duration_seconds,
            requests: RequestCounts {
                completed,
                failed,
                unfinished: around.unfinished,
                unsent: around.unsent,
                good: has_slo.then_some(good),
            },
            failures,
            latency_ms: Latencies {
                ttft: ttft.distribution(),
                itl: gaps.distribution(),
                tpot: tpot.distribution(),
                e2e: e2e.distribution(),
            },
            throughput: Throughput {
                requests_per_second: per_second(completed),
                good_requests_per_second: has_slo.then(|| per_second(good)),
                input_tokens_per_second: per_second(tokens.input),
                output_tokens_per_second: per_second(tokens.output),
            },
            tokens,
            generator,
            server_cpu: around.server_cpu.map(|cpu| {
                let seconds = cpu.as_secs_f64();
                ServerCpu {
                    seconds,
                    microseconds_per_request: per(seconds * 1e6, (completed + failed) as f64),
                    microseconds_per_output_token: per(seconds * 1e6, tokens.output as f64),
                }
            }),
        }
    }
}

fn generator(around: &Surroundings<'_>) -> GeneratorReport {
    let available = around.elapsed.as_secs_f64() * around.threads as f64;
    GeneratorReport {
        lag_ms: around.lag.distribution(),
        max_lag_ms: around.max_lag.as_secs_f64() * 1e3,
        cpu_seconds: around.cpu.as_secs_f64(),
        cpu_share: per(around.cpu.as_secs_f64(), available),
        threads: around.threads,
        max_in_flight: around.max_in_flight,
    }
}

fn invalid_reasons(generator: &GeneratorReport, unsent: u64) -> Vec<String> {
    let mut reasons = Vec::new();
    if unsent > 0 {
        reasons.push(format!(
            "{unsent} requests were due and not sent: all connections were in use, or the \
             generator was too slow"
        ));
    }
    if let Some(lag) = generator.lag_ms
        && lag.p99 > generator.max_lag_ms
    {
        reasons.push(format!(
            "the generator fell behind: its lag's p99 is {:.1} ms, over the bound of {:.1} ms",
            lag.p99, generator.max_lag_ms
        ));
    }
    if generator.cpu_share > SATURATED {
        reasons.push(format!(
            "the generator was busy for {:.0} % of its time",
            generator.cpu_share * 100.0
        ));
    }
    reasons
}

fn is_good(record: &RequestRecord, slo: Slo) -> bool {
    let keeps = |bound: Option<Duration>, ms: Option<f64>| match (bound, ms) {
        (Some(bound), Some(ms)) => ms <= bound.as_secs_f64() * 1e3,
        _ => true,
    };
    keeps(slo.ttft, record.ttft_ms) && keeps(slo.itl, record.tpot_ms)
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    fn record(number: u64, ttft_ms: f64, tpot_ms: f64, failure: Option<Failure>) -> RequestRecord {
        RequestRecord {
            number,
            scheduled_seconds: None,
            sent_seconds: 0.0,
            end_seconds: 2.0 + number as f64,
            ttft_ms: Some(ttft_ms),
            tpot_ms: Some(tpot_ms),
            e2e_ms: Some(ttft_ms + 9.0 * tpot_ms),
            input_tokens: Some(100),
            cached_tokens: Some(25),
            output_tokens: 10,
            requested_tokens: 10,
            content_chunks: 9,
            failure,
        }
    }

    fn failure(detail: &str) -> Option<Failure> {
        Some(Failure::new(FailureClass::Http, detail))
    }

    fn report(records: &[RequestRecord], slo: Slo, cpu: Duration, lag: Duration) -> Report {
        let mut lags = Samples::default();
        lags.record(lag);
        let around = Surroundings {
            unfinished: 0,
            unsent: 0,
            interrupted: false,
            lag: &lags,
            max_lag: Duration::from_millis(5),
            cpu,
            server_cpu: Some(Duration::from_millis(8)),
            elapsed: Duration::from_secs(5),
            threads: 2,
            max_in_flight: 4,
        };
        let run = RunInfo {
            url: "http://a:1".into(),
            model: "<m>".into(),
            api: "chat",
            stream: true,
            workload: "a".into(),
            arrival: "b".into(),
            seed: 1,
            exact_length: true,
            tokens_per_word: None,
            overhead_tokens: None,
            started_unix_seconds: 0,
        };
        Report::new(run, slo, records, &Samples::default(), around)
    }

    fn four() -> Vec<RequestRecord> {
        vec![
            record(0, 100.0, 10.0, None),
            record(1, 300.0, 10.0, None),
            record(2, 100.0, 30.0, None),
            record(3, 1.0, 1.0, failure("503")),
        ]
    }

    #[test]
    fn sums_are_of_what_succeeded() {
        let report = report(&four(), Slo::default(), Duration::ZERO, Duration::ZERO);
        assert_eq!(report.duration_seconds, 5.0);
        let counts = report.requests;
        assert_eq!((counts.completed, counts.failed, counts.good), (3, 1, None));
        let tokens = report.tokens;
        assert_eq!(
            (tokens.input, tokens.cached, tokens.output),
            (300, Some(75), 30)
        );
        assert_eq!(tokens.content_chunks, 27);
        assert_eq!(report.throughput.requests_per_second, 0.6);
        assert_eq!(report.throughput.output_tokens_per_second, 6.0);
        let ttft = report.latency_ms.ttft.unwrap();
        assert_eq!((ttft.count, ttft.min, ttft.max), (3, 100.0, 300.0));
        let cpu = report.server_cpu.unwrap();
        assert_eq!(
            cpu.microseconds_per_request, 2000.0,
            "failed requests cost too"
        );
        assert!((cpu.microseconds_per_output_token - 266.7).abs() < 0.1);
    }

    #[test]
    fn a_good_request_keeps_every_bound() {
        let ms = |milliseconds| Some(Duration::from_millis(milliseconds));
        let good = |ttft, itl| {
            let slo = Slo { ttft, itl };
            let report = report(&four(), slo, Duration::ZERO, Duration::ZERO);
            (
                report.requests.good,
                report.throughput.good_requests_per_second,
            )
        };
        assert_eq!(good(ms(100), ms(10)), (Some(1), Some(0.2)));
        assert_eq!(good(ms(100), None).0, Some(2));
        assert_eq!(good(None, ms(10)).0, Some(2));
        assert_eq!(good(ms(99), None).0, Some(0));
    }

    #[test]
    fn failures_are_in_the_order_of_their_number() {
        let mut records = four();
        records.extend([4, 5].map(|number| record(number, 1.0, 1.0, failure("429"))));
        let report = report(&records, Slo::default(), Duration::ZERO, Duration::ZERO);
        let counts: Vec<_> = (report.failures.iter())
            .map(|f| (&*f.detail, f.count))
            .collect();
        assert_eq!(counts, [("429", 2), ("503", 1)]);
    }

    #[test]
    fn a_generator_that_is_late_or_busy_makes_a_run_not_valid() {
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis(1));
        let reasons = |cpu, lag| {
            let report = report(&four(), Slo::default(), cpu, lag);
            assert_eq!(report.valid, report.invalid_reasons.is_empty());
            report.invalid_reasons.len()
        };
        // Two threads for five seconds have ten.
        assert_eq!(reasons(8 * second, 4 * ms), 0);
        assert_eq!(reasons(8 * second, 6 * ms), 1);
        assert_eq!(reasons(10 * second, 4 * ms), 1);
        assert_eq!(reasons(10 * second, 6 * ms), 2);
    }

    #[test]
    fn nothing_at_all_is_a_report_too() {
        let report = report(&[], Slo::default(), Duration::ZERO, Duration::ZERO);
        assert_eq!(report.throughput.requests_per_second, 0.0);
        assert!(report.latency_ms.e2e.is_none());
        assert!(report.to_string().contains("0 completed"));
        let svg = crate::plot(&report, &[]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }

    #[test]
    fn the_picture_is_well_formed() {
        let report = report(&four(), Slo::default(), Duration::ZERO, Duration::ZERO);
        let svg = crate::plot(&report, &four());
        for line in svg
            .lines()
            .filter(|line| !line.starts_with("<svg") && *line != "</svg>")
        {
            assert!(line.ends_with("/>") || line.ends_with("</text>"), "{line}");
        }
        assert!(svg.contains("&lt;m>") && !svg.contains("NaN") && !svg.contains("inf"));
        for name in ["TTFT", "TPOT", "end to end", "completed", "failed", "p99"] {
            assert!(svg.contains(&format!(">{name}</text>")), "{name}");
        }
    }
}
