use std::fmt;
use std::str::FromStr;

use forebay_mux::session::Incarnation;
use forebay_tokens::WorkerId;

use crate::names::EndpointId;

/// `nats:NAMESPACE/COMPONENT/ENDPOINT/WORKER@INCARNATION`: who is served, and by which process. The
/// last two are 16 hexadecimal digits each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) target: Target,
    /// The process that serves it.
    pub(super) process: Incarnation,
}

/// What is served at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    endpoint: EndpointId,
    worker: WorkerId,
}

impl Target {
    pub(super) fn new(endpoint: &EndpointId, worker: WorkerId) -> Self {
        Self {
            endpoint: endpoint.clone(),
            worker,
        }
    }

    /// The target as a part of a subject.
    pub(super) fn tokens(&self) -> String {
        self.to_string().replace('/', ".")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.endpoint, self.worker.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nats:{}@{:016x}", self.target, self.process.0)
    }
}

/// A text that is no address of this plane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let rest = text.strip_prefix("nats:").ok_or(NotAnAddress)?;
        let (target, process) = rest.split_once('@').ok_or(NotAnAddress)?;
        let parts: Vec<&str> = target.split('/').collect();
        let &[namespace, component, endpoint, worker] = parts.as_slice() else {
            return Err(NotAnAddress);
        };
        let endpoint = EndpointId::new(namespace, component, endpoint);
        Ok(Self {
            target: Target {
                endpoint: endpoint.map_err(|_| NotAnAddress)?,
                worker: WorkerId(hex(worker)?),
            },
            process: Incarnation(hex(process)?),
        })
    }
}

fn hex(text: &str) -> Result<u64, NotAnAddress> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match text.len() == 16 && text.bytes().all(is_plain) {
        true => u64::from_str_radix(text, 16).map_err(|_| NotAnAddress),
        false => Err(NotAnAddress),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let endpoint = EndpointId::new("a", "b-c", "d").unwrap();
        let address = Address {
            target: Target::new(&endpoint, WorkerId(0x1f)),
            process: Incarnation(u64::MAX),
        };
        let text = "nats:a/b-c/d/000000000000001f@ffffffffffffffff";
        assert_eq!(address.to_string(), text);
        assert_eq!(text.parse::<Address>().unwrap(), address);
        assert_eq!(address.target.tokens(), "a.b-c.d.000000000000001f");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "nowhere",
            "nats:a/b/c/000000000000001f",
            "nats:a/b/c/1f@ffffffffffffffff",
            "nats:a/b/000000000000001f@ffffffffffffffff",
            "nats:a/b/c/d/000000000000001f@ffffffffffffffff",
            "nats:a/b/>/000000000000001f@ffffffffffffffff",
            "nats:a/b/c/00000000000000äf@ffffffffffffffff",
            "nats:a/b/c/+00000000000001f@ffffffffffffffff",
            "nats:a/b/c/000000000000001F@ffffffffffffffff",
            "tcp://127.0.0.1:80/a/b/c/1f",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_that_is_written_again_or_none(text in "(nats:)?[a-z/@0-9é.>*]{0,12}/[0-9a-fA-F+-]{15,17}@[0-9a-fA-F+]{15,17}|.{0,24}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
