//! Planes by name, as settings write them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What discovery stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DiscoveryChoice {
    /// `memory`: this process alone.
    Memory,
    /// `file:DIR`: a directory that all processes can write to; `file:` is one of this user's under
    /// the directory for temporary files.
    File(Option<PathBuf>),
    /// `etcd://HOST:PORT[,HOST:PORT]`: the members of an etcd cluster, each `HOST:PORT`.
    Etcd(Vec<String>),
}

/// What requests and their answers go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RequestsChoice {
    /// `memory`: this process alone.
    Memory,
    /// `tcp`: a connection per pair of processes.
    Tcp,
    /// `nats`: the NATS servers that events go by.
    Nats,
    /// `nats://HOST:PORT[,HOST:PORT]`: NATS servers, each `HOST:PORT`.
    NatsServers(Vec<String>),
}

/// What events go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventsChoice {
    /// `memory`: this process alone.
    Memory,
    /// `tcp`: the connections that requests go by.
    Tcp,
    /// `nats://HOST:PORT[,HOST:PORT]`: NATS servers, each `HOST:PORT`.
    Nats(Vec<String>),
}

/// A text that names no plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {expected}")]
pub struct InvalidChoice {
    /// What was written.
    pub text: String,
    /// What could have been.
    pub expected: &'static str,
}

impl FromStr for DiscoveryChoice {
    type Err = InvalidChoice;

    fn from_str(text: &str) -> Result<Self, InvalidChoice> {
        let choice = match text.split_once(':') {
            None if text == "memory" => Some(Self::Memory),
            Some(("file", "")) => Some(Self::File(None)),
            Some(("file", dir)) => Some(Self::File(Some(dir.into()))),
            Some(("etcd", hosts)) => servers(hosts).map(Self::Etcd),
            _ => None,
        };
        choice.ok_or_else(|| invalid(text, "memory, file:DIR, etcd://HOST:PORT[,HOST:PORT]"))
    }
}

impl fmt::Display for DiscoveryChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::File(None) => f.write_str("file:"),
            Self::File(Some(dir)) => write!(f, "file:{}", dir.display()),
            Self::Etcd(members) => write!(f, "etcd://{}", members.join(",")),
        }
    }
}

impl FromStr for RequestsChoice {
    type Err = InvalidChoice;

    fn from_str(text: &str) -> Result<Self, InvalidChoice> {
        let choice = match text.split_once(':') {
            None if text == "memory" => Some(Self::Memory),
            None if text == "tcp" => Some(Self::Tcp),
            None if text == "nats" => Some(Self::Nats),
            Some(("nats", hosts)) => servers(hosts).map(Self::NatsServers),
            _ => None,
        };
        choice.ok_or_else(|| invalid(text, "memory, tcp, nats, nats://HOST:PORT[,HOST:PORT]"))
    }
}

impl fmt::Display for RequestsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Tcp => f.write_str("tcp"),
            Self::Nats => f.write_str("nats"),
            Self::NatsServers(servers) => write!(f, "nats://{}", servers.join(",")),
        }
    }
}

impl FromStr for EventsChoice {
    type Err = InvalidChoice;

    fn from_str(text: &str) -> Result<Self, InvalidChoice> {
        let choice = match text.split_once(':') {
            None if text == "memory" => Some(Self::Memory),
            None if text == "tcp" => Some(Self::Tcp),
            Some(("nats", hosts)) => servers(hosts).map(Self::Nats),
            _ => None,
        };
        choice.ok_or_else(|| invalid(text, "memory, tcp, nats://HOST:PORT[,HOST:PORT]"))
    }
}

impl fmt::Display for EventsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Tcp => f.write_str("tcp"),
            Self::Nats(servers) => write!(f, "nats://{}", servers.join(",")),
        }
    }
}

/// Serde's way through the two above.
macro_rules! as_text {
    ($($choice:ty)*) => {$(
        impl TryFrom<String> for $choice {
            type Error = InvalidChoice;

            fn try_from(text: String) -> Result<Self, InvalidChoice> {
                text.parse()
            }
        }

        impl From<$choice> for String {
            fn from(choice: $choice) -> Self {
                choice.to_string()
            }
        }
    )*};
}
as_text!(DiscoveryChoice RequestsChoice EventsChoice);

/// The `HOST:PORT`s of `//HOST:PORT,HOST:PORT`.
fn servers(text: &str) -> Option<Vec<String>> {
    let hosts = text.strip_prefix("//")?;
    let is_server = |server: &str| {
        server.rsplit_once(':').is_some_and(|(host, port)| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
            !host.is_empty() && host.chars().all(is_plain) && port.parse::<u16>().is_ok()
        })
    };
    let servers: Vec<_> = hosts.split(',').map(str::to_owned).collect();
    servers
        .iter()
        .all(|server| is_server(server))
        .then_some(servers)
}

fn invalid(text: &str, expected: &'static str) -> InvalidChoice {
    let text = text.to_owned();
    InvalidChoice { text, expected }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        for text in ["memory", "file:", "file:/a b", "etcd://a:1,[::1]:2"] {
            let choice: DiscoveryChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
        }
        for text in ["memory", "tcp", "nats", "nats://a:1,b.c:2"] {
            let choice: RequestsChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
        }
        for text in ["memory", "tcp", "nats://a:1"] {
            let choice: EventsChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
        }
    }

    #[test]
    fn what_names_no_plane_is_refused() {
        for text in [
            "",
            "etcd",
            "etcd:a:1",
            "etcd://",
            "etcd://a",
            "etcd://a:1,",
            "http://a:1",
        ] {
            assert!(text.parse::<DiscoveryChoice>().is_err(), "{text}");
        }
        for text in [
            "",
            "quic",
            "nats:",
            "nats://:1",
            "nats://a/b:1",
            "nats://a:65536",
        ] {
            assert!(text.parse::<RequestsChoice>().is_err(), "{text}");
        }
        let error = "nats".parse::<EventsChoice>().unwrap_err();
        let message = error.to_string();
        assert!(message.contains("nats://HOST:PORT"), "{message}");
    }
}
