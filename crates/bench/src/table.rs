use std::fmt;

use crate::report::Report;
use crate::samples::Distribution;

/// The report as a table for a terminal, at most 100 columns wide.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (run, counts) = (&self.run, &self.requests);
        let streamed = if run.stream { "streamed" } else { "whole" };
        writeln!(
            f,
            "server     {}, {}, {} {streamed}",
            run.url, run.model, run.api
        )?;
        write!(f, "load       {}; {}", run.arrival, run.workload)?;
        if !run.exact_length {
            write!(f, ", or where the model ends")?;
        }
        writeln!(f, "; seed {}", run.seed)?;
        write!(
            f,
            "requests   {} completed, {} failed",
            grouped(counts.completed),
            grouped(counts.failed)
        )?;
        if self.interrupted {
            write!(
                f,
                ", {} unfinished when interrupted",
                grouped(counts.unfinished)
            )?;
        }
        if counts.unsent > 0 {
            write!(f, ", {} not sent", grouped(counts.unsent))?;
        }
        writeln!(f, " in {:.1} s", self.duration_seconds)?;
        if let Some(good) = counts.good {
            writeln!(f, "good       {} within the bounds", grouped(good))?;
        }
        self.write_tokens(f)?;

        let latencies = &self.latency_ms;
        writeln!(
            f,
            "\n{:14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "ms", "mean", "min", "p50", "p90", "p95", "p99", "max"
        )?;
        for (name, distribution) in [
            ("TTFT", &latencies.ttft),
            ("ITL", &latencies.itl),
            ("TPOT", &latencies.tpot),
            ("end to end", &latencies.e2e),
        ] {
            if let Some(distribution) = distribution {
                write_row(f, name, distribution)?;
            }
        }

        let throughput = &self.throughput;
        writeln!(f)?;
        write_rate(f, "requests/s", throughput.requests_per_second)?;
        if let Some(good) = throughput.good_requests_per_second {
            write_rate(f, "goodput, requests/s", good)?;
        }
        write_rate(f, "output tokens/s", throughput.output_tokens_per_second)?;
        write_rate(f, "input tokens/s", throughput.input_tokens_per_second)?;
        if let Some(cpu) = &self.server_cpu {
            write_rate(f, "server CPU us/request", cpu.microseconds_per_request)?;
            write_rate(f, "server CPU us/token", cpu.microseconds_per_output_token)?;
        }

        if !self.failures.is_empty() {
            writeln!(f, "\nfailures")?;
        }
        for failure in &self.failures {
            let (count, class) = (grouped(failure.count), failure.class.as_str());
            writeln!(f, "{count:>10}  {class:12}  {}", failure.detail)?;
        }
        self.write_generator(f)
    }
}

impl Report {
    fn write_tokens(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = &self.tokens;
        if !tokens.counted_by_server {
            let chunks = grouped(tokens.content_chunks);
            return writeln!(
                f,
                "tokens     {chunks} parts of streams; the server counts no tokens"
            );
        }
        let per_request = |tokens: u64| tokens as f64 / self.requests.completed.max(1) as f64;
        write!(
            f,
            "tokens     {:.1} in and {:.1} out a request",
            per_request(tokens.input),
            per_request(tokens.output)
        )?;
        if let Some(cached) = tokens.cached {
            let share = 100.0 * cached as f64 / tokens.input.max(1) as f64;
            write!(f, ", {share:.1} % of the input cached")?;
        }
        writeln!(f)
    }

    fn write_generator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generator = &self.generator;
        write!(f, "\ngenerator  ")?;
        if let Some(lag) = &generator.lag_ms {
            write!(
                f,
                "lag p99 {:.2} ms, max {:.2} ms (bound {:.1} ms); ",
                lag.p99, lag.max, generator.max_lag_ms
            )?;
        }
        let (share, threads) = (generator.cpu_share * 100.0, generator.threads);
        let plural = if threads == 1 { "" } else { "s" };
        let in_flight = grouped(generator.max_in_flight);
        writeln!(
            f,
            "CPU {share:.0} % of {threads} thread{plural}; at most {in_flight} in flight"
        )?;
        for reason in &self.invalid_reasons {
            writeln!(f, "NOT VALID  {reason}")?;
        }
        Ok(())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, name: &str, d: &Distribution) -> fmt::Result {
    write!(f, "{name:14}")?;
    for ms in [d.mean, d.min, d.p50, d.p90, d.p95, d.p99, d.max] {
        write!(f, "{:>10}", significant(ms))?;
    }
    writeln!(f)
}

fn write_rate(f: &mut fmt::Formatter<'_>, name: &str, rate: f64) -> fmt::Result {
    let text = if rate >= 1000.0 {
        grouped(rate.round() as u64)
    } else {
        significant(rate)
    };
    writeln!(f, "{name:24}{text:>10}")
}

/// Three digits after the point where the number is small, none where it is large.
fn significant(number: f64) -> String {
    let digits = match number.abs() {
        n if n < 10.0 => 3,
        n if n < 100.0 => 2,
        n if n < 1000.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$}")
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(significant(0.1234), "0.123");
        assert_eq!(significant(12.345), "12.35");
        assert_eq!(significant(123.45), "123.5");
        assert_eq!(significant(12_345.6), "12346");
    }
}
