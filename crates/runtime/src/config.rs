use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the phases of a shutdown may take; see [`Shutdown`](crate::Shutdown).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long requests in flight may go on before they are cancelled. Default 30.
    pub grace_seconds: f64,
    /// How long each of the other phases may take: to deregister, to end after the cancel, to
    /// flush. Default 5.
    pub phase_seconds: f64,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self {
            grace_seconds: 30.0,
            phase_seconds: 5.0,
        }
    }
}

impl ShutdownConfig {
    pub(crate) fn grace(&self) -> Duration {
        seconds(self.grace_seconds)
    }

    pub(crate) fn phase(&self) -> Duration {
        seconds(self.phase_seconds)
    }
}

/// A negative or undefined time is none; one that is too long for the clock is a day.
fn seconds(seconds: f64) -> Duration {
    const LONGEST: f64 = 86_400.0;
    if seconds > 0.0 {
        Duration::from_secs_f64(seconds.min(LONGEST))
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_times_are_brought_into_range() {
        assert_eq!(seconds(1.5), Duration::from_millis(1500));
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(f64::INFINITY), Duration::from_secs(86_400));
    }
}
