use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use forebay_router::{Mode, RouterConfig};
use forebay_runtime::http::HttpLimits;
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
    /// The most bytes that the bodies of all requests hold together, from their arrival until they
    /// are tokens, or where workers come and go until the answer begins; a body up to 16 KiB does not
    /// count. At least 1. Default 256 MiB.
    pub body_budget_bytes: usize,
    /// The longest request line and header fields together; 1 KiB to 1 MiB. Default 32 KiB.
    pub head_limit_bytes: usize,
    /// How many connections are open at a time, at least 1. One more closes the one that is idle
    /// for longest; if none is, it waits. Default 16384.
    pub max_connections: usize,
    /// How long a client may take to send a request's head, from its first byte; more than 0.
    /// Default 30.
    pub header_timeout_seconds: f64,
    /// How long a client may take to send a request's body; more than 0. Default 60.
    pub body_timeout_seconds: f64,
    /// How long a connection may be idle before its first request and between two; more than 0.
    /// Default 120.
    pub idle_timeout_seconds: f64,
    /// How long a client may take nothing of an answer that waits for it; more than 0.
    /// Default 60.
    pub write_timeout_seconds: f64,
    /// The most choices of one request, over all its prompts; at least 1. Default 256.
    pub max_choices: u32,
    /// How long a request waits for a worker where there is none; more than 0. Default 5.
    pub worker_wait_seconds: f64,
    /// How many requests may wait for a worker; one more is refused. Default 1024.
    pub max_waiting_requests: usize,
    /// How many workers are tried for a choice, at least 1: so many may fail in it over its whole
    /// life, and so many refuse it from its last token on. A worker that an operator has paused, or
    /// that stops, does not count. Default 3.
    pub max_attempts: u32,
    /// How long a model whose last worker left is still known, so that requests for it wait for a
    /// worker instead of being told that there is no such model; above 0. Default 60.
    pub model_linger_seconds: f64,
    /// Whether frontends of one deployment tell each other what they have sent to which worker.
    /// Default true.
    pub share_bookings: bool,
    /// How a worker is chosen, for whoever makes a [`WorkerPool`](crate::WorkerPool) of these
    /// settings.
    pub router: RouterConfig,
}

impl Default for FrontendConfig {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8000,
            body_limit_bytes: 16 << 20,
            body_budget_bytes: 256 << 20,
            head_limit_bytes: 32 << 10,
            max_connections: 16_384,
            header_timeout_seconds: 30.0,
            body_timeout_seconds: 60.0,
            idle_timeout_seconds: 120.0,
            write_timeout_seconds: 60.0,
            max_choices: 256,
            worker_wait_seconds: 5.0,
            max_waiting_requests: 1024,
            max_attempts: 3,
            model_linger_seconds: 60.0,
            share_bookings: true,
            router: RouterConfig::default(),
        }
    }
}

impl FrontendConfig {
    /// The address to listen on, with its port.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] or [`Error::Router`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        self.limits()?;
        check_router(&self.router)
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
            body_budget_bytes: at_least_1("body_budget_bytes", self.body_budget_bytes)?,
            http: HttpLimits {
                connections: at_least_1("max_connections", self.max_connections)?,
                head_bytes: match self.head_limit_bytes {
                    limit @ HEAD_LEAST_BYTES..=HEAD_MOST_BYTES => limit,
                    _ => {
                        return Err(Error::InvalidSetting {
                            setting: "head_limit_bytes",
                            expected: "1024 to 1048576",
                        });
                    }
                },
                header_timeout: seconds("header_timeout_seconds", self.header_timeout_seconds)?,
                idle_timeout: seconds("idle_timeout_seconds", self.idle_timeout_seconds)?,
                write_timeout: seconds("write_timeout_seconds", self.write_timeout_seconds)?,
            },
            body_timeout: seconds("body_timeout_seconds", self.body_timeout_seconds)?,
            choices: at_least_1("max_choices", self.max_choices as usize)?,
            worker_wait: seconds("worker_wait_seconds", self.worker_wait_seconds)?,
            waiting_requests: self.max_waiting_requests,
            attempts: NonZeroU32::new(self.max_attempts).ok_or(Error::InvalidSetting {
                setting: "max_attempts",
                expected: "at least 1",
            })?,
            model_linger: seconds("model_linger_seconds", self.model_linger_seconds)?,
        })
    }
}

/// Checks the settings of a pool's router.
pub(crate) fn check_router(router: &RouterConfig) -> Result<(), Error> {
    if router.mode == Mode::Direct {
        return Err(Error::InvalidSetting {
            setting: "router.mode",
            expected: "another mode than direct: clients name no workers",
        });
    }
    Ok(router.check()?)
}

/// What a client may take, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) body_bytes: usize,
    pub(crate) body_budget_bytes: usize,
    pub(crate) http: HttpLimits,
    pub(crate) body_timeout: Duration,
    pub(crate) choices: usize,
    pub(crate) worker_wait: Duration,
    pub(crate) waiting_requests: usize,
    pub(crate) attempts: NonZeroU32,
    pub(crate) model_linger: Duration,
}

const HEAD_LEAST_BYTES: usize = 1 << 10;
const HEAD_MOST_BYTES: usize = 1 << 20;

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
        assert_eq!(config.max_connections, 16_384);
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
                    body_budget_bytes: 0,
                    ..valid.clone()
                },
                "body_budget_bytes",
            ),
            (
                FrontendConfig {
                    head_limit_bytes: 1023,
                    ..valid.clone()
                },
                "head_limit_bytes",
            ),
            (
                FrontendConfig {
                    idle_timeout_seconds: -1.0,
                    ..valid.clone()
                },
                "idle_timeout_seconds",
            ),
            (
                FrontendConfig {
                    write_timeout_seconds: 1e9,
                    ..valid.clone()
                },
                "write_timeout_seconds",
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
                    ..valid.clone()
                },
                "body_timeout_seconds",
            ),
            (
                FrontendConfig {
                    model_linger_seconds: 0.0,
                    ..valid
                },
                "model_linger_seconds",
            ),
        ];
        for (config, name) in cases {
            let error = config.limits().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
