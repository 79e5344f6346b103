use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Durations and their distribution, in bounded memory: percentiles to three digits; mean, least
/// and greatest exact.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    nanoseconds: Histogram<u64>,
    total_seconds: f64,
    min: Duration,
    max: Duration,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            nanoseconds: Histogram::new(3).expect("3 digits are within the histogram's range"),
            total_seconds: 0.0,
            min: Duration::MAX,
            max: Duration::ZERO,
        }
    }
}

impl Samples {
    pub(crate) fn record(&mut self, sample: Duration) {
        let nanoseconds = u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds
            .record(nanoseconds)
            .expect("a histogram that grows takes every number");
        self.total_seconds += sample.as_secs_f64();
        self.min = self.min.min(sample);
        self.max = self.max.max(sample);
    }

    pub(crate) fn distribution(&self) -> Option<Distribution> {
        let count = self.nanoseconds.len();
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let percentile = |percent| {
            let nanoseconds = self.nanoseconds.value_at_percentile(percent);
            ms(Duration::from_nanos(nanoseconds).clamp(self.min, self.max))
        };
        (count > 0).then(|| Distribution {
            count,
            mean: self.total_seconds * 1e3 / count as f64,
            min: ms(self.min),
            p50: percentile(50.0),
            p90: percentile(90.0),
            p95: percentile(95.0),
            p99: percentile(99.0),
            max: ms(self.max),
        })
    }
}

/// How durations are distributed, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// How many there are; at least 1.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut samples = Samples::default();
        assert_eq!(samples.distribution(), None);
        for microseconds in (1..=100_000).rev() {
            samples.record(Duration::from_micros(microseconds));
        }
        let distribution = samples.distribution().unwrap();
        assert_eq!(distribution.count, 100_000);
        assert_eq!((distribution.min, distribution.max), (0.001, 100.0));
        for (value, expected) in [
            (distribution.mean, 50.0005),
            (distribution.p50, 50.0),
            (distribution.p90, 90.0),
            (distribution.p95, 95.0),
            (distribution.p99, 99.0),
        ] {
            assert!(
                (value / expected - 1.0).abs() < 0.001,
                "{value} for {expected}"
            );
        }
    }
}
