//! Names that fit every plane: a key in etcd, a subject of NATS, a name in Kubernetes.

use std::fmt;
use std::sync::Arc;

use forebay_tokens::WorkerId;

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 63;
/// The longest topic, in bytes.
const MAX_TOPIC_BYTES: usize = 255;

/// What instances have in common that can stand in for each other: an address of three names.
///
/// Each name has 1 to 63 bytes of `a`-`z`, `0`-`9`, `-` and `_`, and begins with a letter or a
/// digit. Cloning copies three pointers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    namespace: Arc<str>,
    component: Arc<str>,
    endpoint: Arc<str>,
}

impl EndpointId {
    /// The endpoint `endpoint` of `component` in the deployment `namespace`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`], if one of the three is no proper name.
    pub fn new(namespace: &str, component: &str, endpoint: &str) -> Result<Self, InvalidName> {
        for name in [namespace, component, endpoint] {
            check(name)?;
        }
        Ok(Self {
            namespace: namespace.into(),
            component: component.into(),
            endpoint: endpoint.into(),
        })
    }

    /// The deployment.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The component within the deployment, such as `worker`.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// What the component offers, such as `engine`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The topic `name` of one worker behind this endpoint.
    ///
    /// # Errors
    ///
    /// [`InvalidName`], if `name` is no proper name.
    pub fn topic(&self, name: &str, worker: WorkerId) -> Result<Topic, InvalidName> {
        let [a, b, c] = [&self.namespace, &self.component, &self.endpoint];
        Topic::new(&format!("{a}.{b}.{c}.{name}.{:016x}", worker.0))
    }
}

/// `namespace/component/endpoint`.
impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.component, self.endpoint)
    }
}

/// What events are about: names as those of an [`EndpointId`], joined by dots; 255 bytes at most.
/// Cloning copies a pointer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Takes a topic.
    ///
    /// # Errors
    ///
    /// [`InvalidName`], if it is too long or one of its parts is no proper name.
    pub fn new(topic: &str) -> Result<Self, InvalidName> {
        if topic.len() > MAX_TOPIC_BYTES {
            return Err(InvalidName(topic.to_owned()));
        }
        topic.split('.').try_for_each(check)?;
        Ok(Self(topic.into()))
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no name; see [`EndpointId`] for what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: it takes 1 to {MAX_NAME_BYTES} of a-z, 0-9, - and _, a letter or digit first"
)]
pub struct InvalidName(pub String);

fn check(name: &str) -> Result<(), InvalidName> {
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let is_proper = bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(is_plain)
        && bytes
            .iter()
            .all(|byte| is_plain(byte) || b"-_".contains(byte));
    match is_proper {
        true => Ok(()),
        false => Err(InvalidName(name.to_owned())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_every_plane_can_carry() {
        for good in ["a", "0", "worker", "kv-events", "a_b", &"x".repeat(63)] {
            assert_eq!(EndpointId::new(good, good, good).unwrap().component(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "A",
            "a.b",
            "a/b",
            "a b",
            "a*",
            "ä",
            &"x".repeat(64),
        ] {
            let error = InvalidName(bad.to_owned());
            assert_eq!(EndpointId::new(bad, "b", "c"), Err(error.clone()));
            assert_eq!(EndpointId::new("a", bad, "c"), Err(error.clone()));
            assert_eq!(EndpointId::new("a", "b", bad), Err(error));
        }
    }

    #[test]
    fn a_topic_has_names_between_its_dots() {
        let endpoint = EndpointId::new("forebay", "worker", "engine").unwrap();
        assert_eq!(endpoint.to_string(), "forebay/worker/engine");
        let topic = endpoint.topic("kv-events", WorkerId(0xab)).unwrap();
        assert_eq!(
            topic.as_str(),
            "forebay.worker.engine.kv-events.00000000000000ab"
        );
        assert!(endpoint.topic("*", WorkerId(1)).is_err());
        let long = ["abcdefg"; 40].join(".");
        for bad in ["", ".", "a.", "a..b", "a.>", &long] {
            assert!(Topic::new(bad).is_err(), "{bad}");
        }
    }
}
