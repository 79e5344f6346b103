use std::time::Duration;

use crate::config::{Arrival, Workload};
use crate::random::Random;

/// The stream of the seed that arrivals are drawn from; requests use their own numbers.
const STREAM: u64 = u64::MAX;

/// When each request of an open loop is due, from the start: endless, or as long as the trace.
/// Times never go back. A closed loop has none.
pub(crate) fn due_times(
    arrival: Arrival,
    workload: &Workload,
    seed: u64,
) -> Option<Box<dyn Iterator<Item = Duration> + Send>> {
    match arrival {
        Arrival::Closed { .. } => None,
        Arrival::Poisson { rate_per_second } => {
            let mut random = Random::new(seed, STREAM);
            let mut due_seconds = 0.0;
            Some(Box::new(std::iter::from_fn(move || {
                due_seconds += random.exponential() / rate_per_second;
                Duration::try_from_secs_f64(due_seconds).ok()
            })))
        }
        Arrival::Timestamps { speedup } => {
            let Workload::Trace(trace) = workload else {
                return None;
            };
            let due: Vec<Duration> = (trace.requests().iter())
                .map(|request| request.timestamp_ms as f64 / 1e3 / speedup)
                .map_while(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .collect();
            Some(Box::new(due.into_iter()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Synthetic, Trace};

    fn poisson(seed: u64) -> impl Iterator<Item = Duration> {
        let arrival = Arrival::Poisson {
            rate_per_second: 50.0,
        };
        due_times(arrival, &Workload::Synthetic(Synthetic::default()), seed).unwrap()
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let due: Vec<f64> = poisson(3).take(20_000).map(|d| d.as_secs_f64()).collect();
        assert!(due.is_sorted());
        let mean = due.last().unwrap() / due.len() as f64;
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "mean gap {mean}");
        let gaps = due.windows(2).map(|pair| pair[1] - pair[0]);
        let variance = gaps.map(|gap| (gap - mean).powi(2)).sum::<f64>() / due.len() as f64;
        let spread = variance.sqrt() / mean;
        assert!((spread - 1.0).abs() < 0.05, "spread {spread}");
    }

    #[test]
    fn a_seed_fixes_the_arrivals() {
        assert!(poisson(1).take(100).eq(poisson(1).take(100)));
        assert!(poisson(1).take(100).ne(poisson(2).take(100)));
    }

    #[test]
    fn a_trace_keeps_its_times_and_can_be_sped_up() {
        let line = r#"{"timestamp": T, "input_length": 1, "output_length": 1, "hash_ids": [1]}"#;
        let text: String = ["0", "1500", "3000"]
            .map(|t| line.replace('T', t) + "\n")
            .concat();
        let workload = Workload::Trace(Trace::parse(&text).unwrap());
        let due: Vec<_> = due_times(Arrival::Timestamps { speedup: 3.0 }, &workload, 0)
            .unwrap()
            .collect();
        assert_eq!(due, [0, 500, 1000].map(Duration::from_millis));
    }
}
