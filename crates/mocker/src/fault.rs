use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// Something that goes wrong in an engine.
///
/// In files: `"crash"`, or `{ stall = { seconds = 5 } }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is computed for a while, and then everything goes on.
    Stall {
        /// For how long.
        seconds: f64,
    },
    /// Every stream ends with `Unavailable`, and so does whatever is asked afterwards. There is no
    /// way back.
    Crash,
    /// Every iteration takes so many times as long, until another fault of this kind. Without
    /// effect on iterations that take no time.
    Slow {
        /// 1 is as usual, 2 takes twice as long.
        factor: f64,
    },
    /// New requests are refused with `CapacityExhausted` for a while; what was accepted goes on.
    Refuse {
        /// For how long.
        seconds: f64,
    },
}

/// A fault that comes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledFault {
    /// Seconds after the engine's start.
    pub after_seconds: f64,
    /// Which of the engines that share these settings, by the number that it is started with; in
    /// `forebay serve` that is its worker's, from 1. Default: every one.
    #[serde(default)]
    pub instance: Option<u32>,
    /// What happens.
    pub fault: Fault,
}

impl Fault {
    /// Whether its numbers can be.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Fault`].
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match *self {
            Self::Stall { seconds } | Self::Refuse { seconds } => check_seconds("seconds", seconds),
            Self::Slow { factor } if !(factor.is_finite() && factor > 0.0) => {
                Err(ConfigError::Fault {
                    field: "factor",
                    rule: "above 0",
                    value: factor,
                })
            }
            Self::Slow { .. } | Self::Crash => Ok(()),
        }
    }
}

impl ScheduledFault {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        check_seconds("after_seconds", self.after_seconds)?;
        self.fault.check()
    }
}

fn check_seconds(field: &'static str, value: f64) -> Result<(), ConfigError> {
    match Duration::try_from_secs_f64(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(ConfigError::Fault {
            field,
            rule: "of at least 0",
            value,
        }),
    }
}

/// The faults that are still to come, first first.
#[derive(Debug)]
pub(crate) struct FaultSchedule {
    /// Latest first.
    ahead: Vec<(Duration, Fault)>,
}

impl FaultSchedule {
    /// The faults of one instance that starts at `start`.
    pub(crate) fn new(faults: &[ScheduledFault], instance: u32, start: Duration) -> Self {
        let mut ahead: Vec<_> = faults
            .iter()
            .filter(|fault| fault.instance.is_none_or(|other| other == instance))
            .map(|fault| (start + seconds(fault.after_seconds), fault.fault))
            .collect();
        // Those of one time stay in the order of the settings.
        ahead.reverse();
        ahead.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Self { ahead }
    }

    /// When the next one comes.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.ahead.last().map(|(at, _)| *at)
    }

    /// Takes the next one, if it is due at `now`.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<(Duration, Fault)> {
        self.ahead.pop_if(|(at, _)| *at <= now)
    }
}

/// Checked seconds as a duration.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_order_and_to_their_instance() {
        let fault = |after_seconds, instance, factor| ScheduledFault {
            after_seconds,
            instance,
            fault: Fault::Slow { factor },
        };
        let faults = [
            fault(5.0, None, 1.0),
            fault(2.0, Some(1), 2.0),
            fault(2.0, Some(1), 3.0),
            fault(1.0, Some(2), 4.0),
        ];
        let mut schedule = FaultSchedule::new(&faults, 1, seconds(10.0));
        assert_eq!(schedule.next_at(), Some(seconds(12.0)));
        assert_eq!(schedule.take_due(seconds(11.9)), None);
        let mut taken = Vec::new();
        while let Some((at, Fault::Slow { factor })) = schedule.take_due(seconds(20.0)) {
            taken.push((at.as_secs(), factor));
        }
        assert_eq!(taken, [(12, 2.0), (12, 3.0), (15, 1.0)]);
        assert_eq!(schedule.next_at(), None);
    }

    #[test]
    fn files_have_faults_by_name() {
        let json = r#"[
            {"after_seconds": 1, "fault": "crash"},
            {"after_seconds": 1.5, "instance": 3, "fault": {"stall": {"seconds": 2}}}
        ]"#;
        let faults: Vec<ScheduledFault> = serde_json::from_str(json).unwrap();
        assert_eq!(faults[0].fault, Fault::Crash);
        assert_eq!(faults[1].fault, Fault::Stall { seconds: 2.0 });
        assert_eq!((faults[0].instance, faults[1].instance), (None, Some(3)));
        let wrong = json.replace("seconds\": 2", "second\": 2");
        assert!(serde_json::from_str::<Vec<ScheduledFault>>(&wrong).is_err());
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let wrong = [
            Fault::Stall { seconds: -1.0 },
            Fault::Refuse { seconds: f64::NAN },
            Fault::Slow { factor: 0.0 },
            Fault::Slow {
                factor: f64::INFINITY,
            },
        ];
        for fault in wrong {
            assert!(fault.check().is_err(), "{fault:?}");
        }
        assert!(Fault::Stall { seconds: 0.0 }.check().is_ok());
    }
}
