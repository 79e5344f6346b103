use std::time::Duration;

use crate::planes::{Secret, TlsConfig};

/// Where NATS is, and who this process is there.
///
/// [`NatsConfig::default`] is for one machine: a server on the loopback interface that lets everyone
/// in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// The servers of one cluster as `nats://HOST:PORT` or `tls://HOST:PORT`; without a scheme
    /// `nats`, without a port 4222. One of them that answers is enough. Default
    /// `nats://127.0.0.1:4222`.
    pub servers: Vec<String>,
    /// The user's name, with a password. Default none.
    pub user: Option<String>,
    /// The user's password. Default none.
    pub password: Option<Secret>,
    /// TLS towards the server, with this side's certificate if there is one. Off unless set; a
    /// server that demands it gets it anyway.
    pub tls: TlsConfig,
    /// How long a start waits for a server that is not there yet. Default 30 s.
    pub connect_timeout: Duration,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            user: None,
            password: None,
            tls: TlsConfig::default(),
            connect_timeout: Duration::from_secs(30),
        }
    }
}
