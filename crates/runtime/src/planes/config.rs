use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::choice::{DiscoveryChoice, EventsChoice, RequestsChoice};
use super::own_directory::own_directory_path;
use super::secret::Secret;
use crate::config::ConfigError;

/// How a process finds the others and talks to them; [`PlanesConfig::connect`] makes it so.
///
/// The default needs no service: a directory of this user's for discovery, and TCP on the loopback
/// interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanesConfig {
    /// Who is there: `file:DIR`, `etcd://HOST:PORT[,HOST:PORT]`, or `memory` for this process
    /// alone. Default `file:`, which is a directory of this user's.
    pub discovery: DiscoveryChoice,
    /// Requests and answers: `tcp`, `nats` (the servers of `events`), `nats://HOST:PORT`, or
    /// `memory`. Default `tcp`.
    pub requests: RequestsChoice,
    /// Events: `tcp`, `nats://HOST:PORT[,HOST:PORT]`, or `memory`. Not set, what requests go by.
    pub events: Option<EventsChoice>,
    /// Where TCP listens; port 0 is any free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// The host, or `HOST:PORT`, under which others reach the listener; not set, where it listens.
    pub advertise: Option<String>,
    /// How long an instance is known to discovery after its process was last heard of, in seconds;
    /// 1 to 3,600. Default 10.
    pub lease_seconds: f64,
    /// How long a start waits for the services it needs, in seconds; 0.1 to 600. Default 30.
    pub connect_timeout_seconds: f64,
    /// TLS between the processes of the deployment, where requests go by TCP; off unless set.
    pub tls: PeerTlsConfig,
    /// How etcd is talked to.
    pub etcd: EtcdConfig,
    /// How NATS is talked to.
    pub nats: NatsAuthConfig,
}

impl Default for PlanesConfig {
    fn default() -> Self {
        Self {
            discovery: DiscoveryChoice::File(None),
            requests: RequestsChoice::Tcp,
            events: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: None,
            lease_seconds: 10.0,
            connect_timeout_seconds: 30.0,
            tls: PeerTlsConfig::default(),
            etcd: EtcdConfig::default(),
            nats: NatsAuthConfig::default(),
        }
    }
}

/// Certificates, each a file in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// This side's certificate chain; needs `key`.
    pub cert: Option<PathBuf>,
    /// The certificate's private key.
    pub key: Option<PathBuf>,
    /// Whose signature makes the other side's certificate good; not set, the system's roots.
    pub ca: Option<PathBuf>,
}

impl TlsConfig {
    /// Whether anything is set, which turns TLS on.
    pub fn is_on(&self) -> bool {
        self.cert.is_some() || self.ca.is_some()
    }

    fn check(&self, setting: &'static str) -> Result<(), ConfigError> {
        check(
            self.cert.is_some() == self.key.is_some(),
            setting,
            "a certificate with its key",
        )
    }
}

/// TLS between the processes of a deployment: certificates, each a file in PEM form. They are
/// looked at every few seconds, and what is new in them is used for new connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerTlsConfig {
    /// This process's certificate chain; needs `key`. Others know the process by its advertised host
    /// if the certificate is for that, and else by the first DNS name in it that is no wildcard.
    pub cert: Option<PathBuf>,
    /// The certificate's private key.
    pub key: Option<PathBuf>,
    /// Whose signature makes the others' certificates good, servers' and clients'; not set, the
    /// system's roots, and clients show none.
    pub ca: Option<PathBuf>,
    /// The DNS names of which a certificate must have one for its owner to be talked to: names, or
    /// patterns such as `*.workers.internal`, where `*` stands for one label. Needs `ca`. Empty, any
    /// that `ca` signed.
    pub names: Vec<String>,
}

impl PeerTlsConfig {
    /// Whether anything is set, which turns TLS on.
    pub fn is_on(&self) -> bool {
        self.cert.is_some() || self.ca.is_some()
    }

    fn check(&self) -> Result<(), ConfigError> {
        check(
            self.cert.is_some() == self.key.is_some(),
            "tls",
            "a certificate with its key",
        )?;
        let is_name = |pattern: &String| {
            let name = pattern.strip_prefix("*.").unwrap_or(pattern);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && name.chars().all(is_plain)
        };
        check(
            self.names.iter().all(is_name) && (self.names.is_empty() || self.ca.is_some()),
            "tls.names",
            "DNS names or `*.` before one, and set with tls.ca",
        )
    }
}

/// How etcd is talked to. A user needs to read and write keys that begin with `/forebay/v1/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdConfig {
    /// The user; needs `password`. Not set: no authentication by name.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// TLS towards etcd; off unless set.
    pub tls: TlsConfig,
}

/// How NATS is talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsAuthConfig {
    /// The user; needs `password`. Not set: no authentication by name.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// TLS towards NATS; off unless set.
    pub tls: TlsConfig,
}

impl PlanesConfig {
    /// Checks every setting and what they need of each other.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that does not fit.
    pub fn check(&self) -> Result<(), ConfigError> {
        check(
            (1.0..=3600.0).contains(&self.lease_seconds),
            "lease_seconds",
            "from 1 to 3600",
        )?;
        check(
            (0.1..=600.0).contains(&self.connect_timeout_seconds),
            "connect_timeout_seconds",
            "from 0.1 to 600",
        )?;
        let events = self.events_in_use();
        check(
            self.requests != RequestsChoice::Nats || matches!(events, EventsChoice::Nats(_)),
            "requests",
            "nats://HOST:PORT, where events do not name the servers",
        )?;
        check(
            events != EventsChoice::Tcp || self.requests == RequestsChoice::Tcp,
            "events",
            "memory or nats://HOST:PORT, where requests do not go by tcp",
        )?;
        check(
            self.advertise.as_deref() != Some(""),
            "advertise",
            "HOST or HOST:PORT",
        )?;
        self.tls.check()?;
        check(
            !self.tls.is_on() || self.requests == RequestsChoice::Tcp,
            "tls",
            "not set where requests do not go by tcp; TLS towards NATS is nats.tls",
        )?;
        self.etcd.tls.check("etcd.tls")?;
        self.nats.tls.check("nats.tls")?;
        check(
            self.etcd.user.is_some() == self.etcd.password.is_some(),
            "etcd.user",
            "set with etcd.password",
        )?;
        check(
            self.nats.user.is_some() == self.nats.password.is_some(),
            "nats.user",
            "set with nats.password",
        )
    }

    /// [`PlanesConfig::check`], for a process that works with others.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], also for what is of one process alone.
    pub fn check_shared(&self) -> Result<(), ConfigError> {
        self.check()?;
        check(
            self.discovery != DiscoveryChoice::Memory,
            "discovery",
            "file:DIR or etcd://HOST:PORT, for other processes to find this one",
        )?;
        check(
            self.requests != RequestsChoice::Memory,
            "requests",
            "tcp or nats://HOST:PORT, for other processes to talk to this one",
        )
    }

    /// Where discovery is: a directory is named, from the root on.
    pub fn discovery_in_use(&self) -> DiscoveryChoice {
        match &self.discovery {
            DiscoveryChoice::File(None) => {
                DiscoveryChoice::File(Some(own_directory_path(&temporary_dir())))
            }
            DiscoveryChoice::File(Some(directory)) => {
                // Without a current directory, opening it will tell.
                let absolute = std::path::absolute(directory);
                DiscoveryChoice::File(Some(absolute.unwrap_or_else(|_| directory.clone())))
            }
            other => other.clone(),
        }
    }

    /// What events go by, set or not.
    pub fn events_in_use(&self) -> EventsChoice {
        match (&self.events, &self.requests) {
            (Some(events), _) => events.clone(),
            (None, RequestsChoice::Memory) => EventsChoice::Memory,
            (None, RequestsChoice::NatsServers(servers)) => EventsChoice::Nats(servers.clone()),
            (None, RequestsChoice::Tcp | RequestsChoice::Nats) => EventsChoice::Tcp,
        }
    }

    /// How long an instance outlives its process in discovery.
    pub fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease_seconds.clamp(1.0, 3600.0))
    }

    /// How long a start waits for the services it needs.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.connect_timeout_seconds.clamp(0.1, 600.0))
    }
}

/// Where temporary files go.
pub(super) fn temporary_dir() -> PathBuf {
    std::env::temp_dir()
}

fn check(holds: bool, setting: &'static str, expected: &'static str) -> Result<(), ConfigError> {
    match holds {
        true => Ok(()),
        false => Err(ConfigError { setting, expected }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut PlanesConfig)) -> &'static str {
        let mut config = PlanesConfig::default();
        assert_eq!(config.check(), Ok(()));
        change(&mut config);
        config.check().unwrap_err().setting
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let path = Some(PathBuf::from("x.pem"));
        for lease in [0.0, f64::NAN, 3601.0] {
            assert_eq!(refused(|c| c.lease_seconds = lease), "lease_seconds");
        }
        assert_eq!(
            refused(|c| c.connect_timeout_seconds = 0.0),
            "connect_timeout_seconds"
        );
        let nats = || RequestsChoice::Nats;
        assert_eq!(refused(|c| c.requests = nats()), "requests");
        let tcp_alone = |c: &mut PlanesConfig| {
            c.requests = RequestsChoice::Memory;
            c.events = Some(EventsChoice::Tcp);
        };
        assert_eq!(refused(tcp_alone), "events");
        assert_eq!(refused(|c| c.advertise = Some(String::new())), "advertise");
        assert_eq!(refused(|c| c.tls.cert = path.clone()), "tls");
        let over_nats = |c: &mut PlanesConfig| {
            c.requests = "nats://a:1".parse().unwrap();
            c.tls.ca = path.clone();
        };
        assert_eq!(refused(over_nats), "tls");
        let names = || vec!["*.workers.internal".to_owned()];
        assert_eq!(refused(|c| c.tls.names = names()), "tls.names");
        let starry = |c: &mut PlanesConfig| {
            c.tls.ca = path.clone();
            c.tls.names = vec!["w*.internal".to_owned()];
        };
        assert_eq!(refused(starry), "tls.names");
        assert_eq!(refused(|c| c.etcd.tls.key = path.clone()), "etcd.tls");
        assert_eq!(refused(|c| c.nats.tls.key = path.clone()), "nats.tls");
        assert_eq!(
            refused(|c| c.etcd.user = Some("me".to_owned())),
            "etcd.user"
        );
        assert_eq!(
            refused(|c| c.nats.password = Some(Secret::new("hush"))),
            "nats.user"
        );
    }

    #[test]
    fn who_works_with_others_can_be_found() {
        let mut config = PlanesConfig::default();
        assert_eq!(config.check_shared(), Ok(()));
        config.requests = RequestsChoice::Memory;
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.check_shared().unwrap_err().setting, "requests");
        config.discovery = DiscoveryChoice::Memory;
        assert_eq!(config.check_shared().unwrap_err().setting, "discovery");
    }

    #[test]
    fn events_go_as_requests_do() {
        let mut config = PlanesConfig::default();
        for (requests, events) in [
            ("tcp", "tcp"),
            ("memory", "memory"),
            ("nats://a:1,b:2", "nats://a:1,b:2"),
        ] {
            config.requests = requests.parse().unwrap();
            assert_eq!(config.check(), Ok(()));
            assert_eq!(config.events_in_use().to_string(), events);
        }
        config.events = Some(EventsChoice::Memory);
        assert_eq!(config.events_in_use(), EventsChoice::Memory);
    }

    #[test]
    fn the_directory_of_discovery_is_named_in_full() {
        let mut config = PlanesConfig::default();
        for directory in ["file:", "file:here/below", "file:/there"] {
            config.discovery = directory.parse().unwrap();
            let DiscoveryChoice::File(Some(path)) = config.discovery_in_use() else {
                panic!("it is a directory");
            };
            assert!(path.is_absolute(), "{}", path.display());
        }
        config.discovery = "etcd://a:1".parse().unwrap();
        assert_eq!(config.discovery_in_use(), config.discovery);
    }

    #[test]
    fn passwords_are_not_shown() {
        let mut config = PlanesConfig::default();
        config.etcd.password = Some(Secret::new("hush"));
        assert!(!format!("{config:?}").contains("hush"));
    }
}
