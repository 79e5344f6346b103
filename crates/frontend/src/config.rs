use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The frontend's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrontendConfig {
    /// The address to listen on. Default 127.0.0.1: reachable from this machine only.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one. Default 8000.
    pub port: u16,
    /// The longest request body. Default 16 MiB.
    pub body_limit_bytes: usize,
    /// How many connections are open at a time, at least 1; more wait in the system's queue.
    /// Default 4096.
    pub max_connections: usize,
    /// How long a client may take to send a request's head, and a connection may be idle; more
    /// than 0. Default 30.
    pub header_timeout_seconds: f64,
    /// How long a client may take to send a request's body; more than 0. Default 60.
    pub body_timeout_seconds: f64,
    /// The most choices of one request, over all its prompts; at least 1. Default 256.
    pub max_choices: u32,
}

impl Default for FrontendConfig {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8000,
            body_limit_bytes: 16 << 20,
            max_connections: 4096,
            header_timeout_seconds: 30.0,
            body_timeout_seconds: 60.0,
            max_choices: 256,
        }
    }
}

impl FrontendConfig {
    /// The address to listen on, with its port.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// The settings as what the server uses.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for the first that is out of its range.
    pub(crate) fn limits(&self) -> Result<Limits, Error> {
        let at_least_1 = |setting, value: usize| match value {
            0 => Err(Error::InvalidSetting {
                setting,
                expected: "at least 1",
            }),
            _ => Ok(value),
        };
        Ok(Limits {
            body_bytes: at_least_1("body_limit_bytes", self.body_limit_bytes)?,
            connections: at_least_1("max_connections", self.max_connections)?,
            header_timeout: seconds("header_timeout_seconds", self.header_timeout_seconds)?,
            body_timeout: seconds("body_timeout_seconds", self.body_timeout_seconds)?,
            choices: at_least_1("max_choices", self.max_choices as usize)?,
        })
    }
}

/// What a client may take, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) body_bytes: usize,
    pub(crate) connections: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) choices: usize,
}

/// A time above 0, at most a day.
fn seconds(setting: &'static str, seconds: f64) -> Result<Duration, Error> {
    const LONGEST: f64 = 86_400.0;
    match seconds > 0.0 && seconds <= LONGEST {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(Error::InvalidSetting {
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
    fn settings_are_read_with_defaults_and_unknown_ones_are_refused() {
        let config: FrontendConfig =
            serde_json::from_str(r#"{"host": "::1", "port": 80}"#).unwrap();
        assert_eq!(config.address().to_string(), "[::1]:80");
        assert_eq!(config.max_connections, 4096);
        let error = serde_json::from_str::<FrontendConfig>(r#"{"prot": 80}"#).unwrap_err();
        assert!(error.to_string().contains("prot"), "{error}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let valid = FrontendConfig::default();
        assert!(valid.limits().is_ok());
        let cases = [
            (
                FrontendConfig {
                    max_connections: 0,
                    ..valid.clone()
                },
                "max_connections",
            ),
            (
                FrontendConfig {
                    body_limit_bytes: 0,
                    ..valid.clone()
                },
                "body_limit_bytes",
            ),
            (
                FrontendConfig {
                    max_choices: 0,
                    ..valid.clone()
                },
                "max_choices",
            ),
            (
                FrontendConfig {
                    header_timeout_seconds: 0.0,
                    ..valid.clone()
                },
                "header_timeout_seconds",
            ),
            (
                FrontendConfig {
                    body_timeout_seconds: f64::NAN,
                    ..valid
                },
                "body_timeout_seconds",
            ),
        ];
        for (config, name) in cases {
            let error = config.limits().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
