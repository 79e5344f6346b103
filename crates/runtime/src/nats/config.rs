use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Where NATS is, and who this process is there.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// The servers of one cluster as `nats://host:port` or `tls://host:port`; without a scheme
    /// `nats`, without a port 4222. One of them that answers is enough. Default
    /// `nats://127.0.0.1:4222`.
    pub servers: Vec<String>,
    /// The user's name, with a password. Default none.
    pub user: Option<String>,
    /// The user's password. Default none.
    pub password: Option<String>,
    /// A token instead of a user. Default none.
    pub token: Option<String>,
    /// How the connection is encrypted. A server that demands TLS gets it anyway.
    pub tls: NatsTls,
    /// How long a start waits for a server that is not there yet; 0 to 3,600. Default 30.
    pub connect_seconds: f64,
}

/// TLS towards NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsTls {
    /// Whether a connection without TLS is refused. Default false; `tls://` means it, too.
    pub required: bool,
    /// A PEM file of the authorities that may vouch for the server. Default: those that the system
    /// trusts.
    pub ca: Option<PathBuf>,
    /// A PEM file of this process's certificate, with its chain. Default none.
    pub cert: Option<PathBuf>,
    /// A PEM file of the certificate's key. Default none.
    pub key: Option<PathBuf>,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            user: None,
            password: None,
            token: None,
            tls: NatsTls::default(),
            connect_seconds: 30.0,
        }
    }
}

impl NatsConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting, expected| Err(ConfigError { setting, expected });
        let is_address = |server: &String| server.parse::<async_nats::ServerAddr>().is_ok();
        if self.servers.is_empty() || !self.servers.iter().all(is_address) {
            return wrong(
                "servers",
                "at least one nats://host:port or tls://host:port",
            );
        }
        if self.user.is_some() != self.password.is_some() {
            return wrong("user", "given together with password");
        }
        if self.token.is_some() && self.user.is_some() {
            return wrong("token", "given instead of user and password");
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return wrong("tls.cert", "given together with tls.key");
        }
        if !(0.0..=LONGEST_CONNECT_SECONDS).contains(&self.connect_seconds) {
            return wrong("connect_seconds", "from 0 to 3,600");
        }
        Ok(())
    }

    /// How long a start waits; a time out of its range is brought into it.
    pub(super) fn connect_time(&self) -> Duration {
        let seconds = self.connect_seconds.clamp(0.0, LONGEST_CONNECT_SECONDS);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

/// An hour.
const LONGEST_CONNECT_SECONDS: f64 = 3_600.0;

/// Secrets are left out.
impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfig")
            .field("servers", &self.servers)
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("connect_seconds", &self.connect_seconds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The setting that is found wrong after a change.
    fn wrong(change: impl FnOnce(&mut NatsConfig)) -> Option<&'static str> {
        let mut config = NatsConfig::default();
        change(&mut config);
        config.check().err().map(|error| error.setting)
    }

    #[test]
    fn settings_out_of_range_are_named() {
        assert_eq!(wrong(|_| ()), None);
        assert_eq!(wrong(|config| config.servers.clear()), Some("servers"));
        let other = |config: &mut NatsConfig| config.servers = vec!["http://host".into()];
        assert_eq!(wrong(other), Some("servers"));
        let several = |config: &mut NatsConfig| {
            config.servers = ["a", "tls://b", "nats://c:1"].map(String::from).to_vec();
        };
        assert_eq!(wrong(several), None);
        let user = |config: &mut NatsConfig| config.user = Some("u".into());
        assert_eq!(wrong(user), Some("user"));
        let both = |config: &mut NatsConfig| {
            config.user = Some("u".into());
            config.password = Some("p".into());
            config.token = Some("t".into());
        };
        assert_eq!(wrong(both), Some("token"));
        let cert = |config: &mut NatsConfig| config.tls.cert = Some("cert.pem".into());
        assert_eq!(wrong(cert), Some("tls.cert"));
        for seconds in [-1.0, 3_601.0, f64::NAN] {
            let connect = |config: &mut NatsConfig| config.connect_seconds = seconds;
            assert_eq!(wrong(connect), Some("connect_seconds"));
        }
    }

    #[test]
    fn an_undefined_time_is_none() {
        let config = |connect_seconds| NatsConfig {
            connect_seconds,
            ..NatsConfig::default()
        };
        assert_eq!(config(1.5).connect_time(), Duration::from_millis(1500));
        assert_eq!(config(f64::NAN).connect_time(), Duration::ZERO);
        assert_eq!(config(-1.0).connect_time(), Duration::ZERO);
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = NatsConfig {
            user: Some("someone".into()),
            password: Some("hidden".into()),
            token: Some("hidden".into()),
            ..NatsConfig::default()
        };
        let text = format!("{config:?}");
        assert!(
            text.contains("someone") && !text.contains("hidden"),
            "{text}"
        );
    }
}
