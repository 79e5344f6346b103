use std::time::Duration;

use forebay_engine::remote::engine_endpoint;
use forebay_runtime::EndpointId;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// How workers behave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// The deployment that the worker belongs to: 1 to 63 of `a`-`z`, `0`-`9`, `-` and `_`.
    /// Default `forebay`.
    pub namespace: String,
    /// How long the engine may take to answer a request of one token before it counts as gone;
    /// more than 0, at most a day. Default 30.
    pub canary_seconds: f64,
    /// The wait before an engine that is gone, or a discovery that does not answer, is tried
    /// again; more than 0, at most a day. Default 1.
    pub retry_seconds: f64,
    /// How long the engine may do nothing for clients that wait for it before it counts as gone;
    /// more than 0, at most a day. More than the longest step that the engine can take: within one,
    /// nothing shows that it works. Default 30.
    pub stall_timeout_seconds: f64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            namespace: "forebay".into(),
            canary_seconds: 30.0,
            retry_seconds: 1.0,
            stall_timeout_seconds: 30.0,
        }
    }
}

impl WorkerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that cannot be.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.checked().map(drop)
    }

    /// The settings as what a worker uses.
    pub(crate) fn checked(&self) -> Result<Checked, ConfigError> {
        Ok(Checked {
            endpoint: engine_endpoint(&self.namespace).map_err(ConfigError::Namespace)?,
            canary: seconds("canary_seconds", self.canary_seconds)?,
            retry: seconds("retry_seconds", self.retry_seconds)?,
            stall_timeout: seconds("stall_timeout_seconds", self.stall_timeout_seconds)?,
        })
    }
}

/// Settings that are in their ranges.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) endpoint: EndpointId,
    pub(crate) canary: Duration,
    pub(crate) retry: Duration,
    pub(crate) stall_timeout: Duration,
}

/// A time of at least a nanosecond, so that nothing is tried without a pause.
fn seconds(setting: &'static str, seconds: f64) -> Result<Duration, ConfigError> {
    const LONGEST: Duration = Duration::from_secs(86_400);
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        _ => Err(ConfigError::OutOfRange {
            setting,
            expected: "above 0 and at most a day",
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        WorkerConfig::default().check().unwrap();
        type Change = fn(&mut WorkerConfig, f64);
        let settings: [(&str, Change); 3] = [
            ("canary_seconds", |c, to| c.canary_seconds = to),
            ("retry_seconds", |c, to| c.retry_seconds = to),
            ("stall_timeout_seconds", |c, to| {
                c.stall_timeout_seconds = to
            }),
        ];
        for (name, change) in settings {
            for (value, is_valid) in [
                (0.001, true),
                (86_400.0, true),
                (0.0, false),
                (-1.0, false),
                (86_401.0, false),
                (f64::NAN, false),
                (f64::INFINITY, false),
            ] {
                let mut config = WorkerConfig::default();
                change(&mut config, value);
                match config.check() {
                    Ok(()) => assert!(is_valid, "{name} = {value}"),
                    Err(error) => {
                        assert!(!is_valid, "{name} = {value}");
                        assert!(error.to_string().contains(name), "{error}");
                    }
                }
            }
        }
        let config = WorkerConfig {
            namespace: "No name".into(),
            ..WorkerConfig::default()
        };
        assert!(matches!(config.check(), Err(ConfigError::Namespace(_))));
    }
}
