use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::histogram::Histogram;

/// The upper bounds of a histogram's buckets, ascending, without the infinite last one.
///
/// The constants are vLLM's bounds for the same quantities, so that panels and alerts which
/// compare an engine with the system in front of it read the same scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buckets(pub &'static [f64]);

impl Buckets {
    /// Time to first token, in seconds: 1 ms to 2560 s
    /// (`vllm:time_to_first_token_seconds`).
    pub const TIME_TO_FIRST_TOKEN: Self = Self(&[
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
        20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
    ]);

    /// Inter-token latency and time per output token, in seconds: 10 ms to 80 s
    /// (`vllm:inter_token_latency_seconds`), with 1, 2.5 and 5 ms added for small models.
    pub const INTER_TOKEN_LATENCY: Self = Self(&[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
        2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    ]);

    /// A whole request, or its time in a queue, in seconds: 0.3 s to 7680 s
    /// (`vllm:e2e_request_latency_seconds`), with 10, 30 and 100 ms added for short answers.
    pub const REQUEST_DURATION: Self = Self(&[
        0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
        50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
    ]);

    /// A step of a request within one process, in seconds: 10 us to 60 s.
    pub const STAGE_DURATION: Self = Self(&[
        0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01,
        0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ]);

    /// Tokens of one request, prompt or output: 1, 2, 5, 10 and so on to a million
    /// (`vllm:request_prompt_tokens`).
    pub const REQUEST_TOKENS: Self = Self(&[
        1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5,
        2e5, 5e5, 1e6,
    ]);

    /// Tokens computed in one engine iteration: 1 to 16384 (`vllm:iteration_tokens_total`).
    pub const ITERATION_TOKENS: Self = Self(&[
        1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
    ]);

    /// An empty histogram with these bounds.
    pub fn histogram(self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Lets a [`Family`](crate::Family) make its histograms: `Family<Labels, Histogram, Buckets>`.
impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        self.histogram()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend() {
        for buckets in [
            Buckets::TIME_TO_FIRST_TOKEN,
            Buckets::INTER_TOKEN_LATENCY,
            Buckets::REQUEST_DURATION,
            Buckets::STAGE_DURATION,
            Buckets::REQUEST_TOKENS,
            Buckets::ITERATION_TOKENS,
        ] {
            assert!(buckets.0.is_sorted_by(|a, b| a < b), "{buckets:?}");
        }
    }
}
