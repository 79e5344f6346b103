use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where a worker's process tells about itself. Nobody has to authenticate there, and who reaches
/// it can pause the engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusConfig {
    /// The address to listen on. Default 127.0.0.1: reachable from this machine only.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one. Default: none, and nothing listens.
    pub port: Option<u16>,
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: None,
        }
    }
}

impl StatusConfig {
    /// The address to listen on, if anything is to.
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(self.host, port))
    }
}
