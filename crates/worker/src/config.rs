use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How workers behave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// The deployment that the worker belongs to: 1 to 63 of `a`-`z`, `0`-`9`, `-` and `_`.
    /// Default `forebay`.
    pub namespace: String,
    /// How long the engine may take to answer a request of one token before it counts as gone.
    /// Default 30.
    pub canary_seconds: f64,
    /// The wait before an engine that is gone, or a discovery that does not answer, is tried
    /// again. Default 1.
    pub retry_seconds: f64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            namespace: "forebay".into(),
            canary_seconds: 30.0,
            retry_seconds: 1.0,
        }
    }
}

impl WorkerConfig {
    pub(crate) fn canary(&self) -> Duration {
        seconds(self.canary_seconds)
    }

    pub(crate) fn retry(&self) -> Duration {
        seconds(self.retry_seconds)
    }
}

/// From a millisecond, so that nothing is tried without a pause, to a day.
fn seconds(seconds: f64) -> Duration {
    const SHORTEST: f64 = 0.001;
    const LONGEST: f64 = 86_400.0;
    let in_range = if seconds > SHORTEST {
        seconds.min(LONGEST)
    } else {
        SHORTEST
    };
    Duration::from_secs_f64(in_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_times_are_brought_into_range() {
        assert_eq!(seconds(0.25), Duration::from_millis(250));
        for short in [0.0, -1.0, f64::NAN] {
            assert_eq!(seconds(short), Duration::from_millis(1));
        }
        assert_eq!(seconds(f64::INFINITY), Duration::from_secs(86_400));
    }
}
