use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the phases of a shutdown may take; see [`Shutdown`](crate::Shutdown).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long requests in flight may go on before they are cancelled; 0 to a day. Default 30.
    pub grace_seconds: f64,
    /// How long each of the other phases may take: to deregister, to end after the cancel, to
    /// flush; 0 to a day. Default 5.
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

/// A setting is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {expected}")]
pub struct ConfigError {
    /// The setting's name.
    pub setting: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

impl ShutdownConfig {
    /// Checks every setting. A [`Shutdown`](crate::Shutdown) brings times that were not checked
    /// into their ranges: it has to end.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let times = [
            ("grace_seconds", self.grace_seconds),
            ("phase_seconds", self.phase_seconds),
        ];
        match times
            .into_iter()
            .find(|(_, seconds)| !(0.0..=LONGEST_SECONDS).contains(seconds))
        {
            Some((setting, _)) => Err(ConfigError {
                setting,
                expected: "from 0 to a day",
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn grace(&self) -> Duration {
        seconds(self.grace_seconds)
    }

    pub(crate) fn phase(&self) -> Duration {
        seconds(self.phase_seconds)
    }
}

const LONGEST_SECONDS: f64 = 86_400.0;

/// A negative or undefined time is none; one that is too long for the clock is a day.
fn seconds(seconds: f64) -> Duration {
    if seconds > 0.0 {
        Duration::from_secs_f64(seconds.min(LONGEST_SECONDS))
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_range_are_named() {
        let valid = ShutdownConfig::default();
        assert_eq!(valid.check(), Ok(()));
        for seconds in [-1.0, f64::NAN, 86_401.0] {
            let config = ShutdownConfig {
                grace_seconds: seconds,
                ..valid
            };
            assert_eq!(config.check().unwrap_err().setting, "grace_seconds");
        }
        let config = ShutdownConfig {
            phase_seconds: -1.0,
            ..valid
        };
        assert_eq!(config.check().unwrap_err().setting, "phase_seconds");
    }

    #[test]
    fn odd_times_are_brought_into_range() {
        assert_eq!(seconds(1.5), Duration::from_millis(1500));
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(f64::INFINITY), Duration::from_secs(86_400));
    }
}
