use std::fmt;
use std::str::FromStr;

/// `tcp://HOST:PORT/TARGET`, with `?identity=NAME` where the peer must show a certificate for NAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) process: Process,
    /// What is served there: `NAMESPACE/COMPONENT/ENDPOINT/WORKER`.
    pub(super) target: String,
}

/// A process behind an address: what there is one connection for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// `HOST:PORT`.
    pub(super) authority: String,
    /// Whose certificate it must show.
    pub(super) identity: Option<String>,
}

impl Process {
    /// The host alone, without the brackets of IPv6.
    pub(super) fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// A text that is no address of this plane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let rest = text.strip_prefix("tcp://").ok_or(NotAnAddress)?;
        let (authority, path) = rest.split_once('/').ok_or(NotAnAddress)?;
        let (target, identity) = match path.split_once("?identity=") {
            Some((target, identity)) => (target, Some(identity.to_owned())),
            None => (path, None),
        };
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        if port.is_none_or(|port| port.parse::<u16>().is_err()) || target.is_empty() {
            return Err(NotAnAddress);
        }
        let process = Process {
            authority: authority.to_owned(),
            identity,
        };
        let target = target.to_owned();
        Ok(Self { process, target })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}/{}", self.process.authority, self.target)?;
        match &self.process.identity {
            Some(identity) => write!(f, "?identity={identity}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "tcp://127.0.0.1:80/a/b/c/1f",
            "tcp://[::1]:65535/a",
            "tcp://worker-1.example:7/a/b?identity=worker-1.example",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let address: Address = "tcp://[::1]:9/a".parse().unwrap();
        assert_eq!(address.process.host(), "::1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "nowhere",
            "tcp://a:1",
            "tcp://a:1/",
            "tcp://a/b",
            "tcp://a:65536/b",
            "nats:a/b/c/1@2",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_that_is_written_again_or_none(text in "(tcp://)?[a-z\\[\\]:/@?=0-9é]{0,24}(\\?identity=.{0,8})?") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
