use std::fmt;
use std::sync::Arc;

/// A token's index in a model's vocabulary.
///
/// An alias, not a newtype: token ids live in long vectors that cross the wire and the engine, and
/// a bare `u32` is what every engine and tokenizer speaks.
pub type TokenId = u32;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// One worker's identity within a deployment; unique for the life of the worker's process.
    WorkerId(u64)
);
number_id!(
    /// A data-parallel rank within a worker, from 0.
    DpRank(u32)
);
number_id!(
    /// The index of a physical KV block within one pool, from 0.
    BlockId(u32)
);

/// The name under which one request is known in every log line, metric exemplar and hop.
///
/// 1 to 128 bytes of visible ASCII, so that it can travel in an HTTP header and a log line as it
/// is. Cloning copies a pointer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The longest accepted id, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Takes an id from outside.
    ///
    /// # Errors
    ///
    /// [`InvalidRequestId`] if it is empty, longer than [`Self::MAX_BYTES`] or holds anything but
    /// visible ASCII.
    pub fn new(id: &str) -> Result<Self, InvalidRequestId> {
        if id.is_empty() || id.len() > Self::MAX_BYTES {
            return Err(InvalidRequestId::Length(id.len()));
        }
        match id.bytes().position(|b| !b.is_ascii_graphic()) {
            Some(at) => Err(InvalidRequestId::Character(at)),
            None => Ok(Self(id.into())),
        }
    }

    /// Makes an id of 128 random bits, as 32 hexadecimal digits.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}").into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`RequestId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequestId {
    /// Empty or too long; the length in bytes.
    #[error("a request id has 1 to {max} bytes, not {0}", max = RequestId::MAX_BYTES)]
    Length(usize),
    /// A byte that is not visible ASCII; its position.
    #[error("a request id is visible ASCII, but byte {0} is not")]
    Character(usize),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_what_a_header_can_carry() {
        assert_eq!(RequestId::new("req-1").unwrap().as_str(), "req-1");
        assert_eq!(RequestId::new(""), Err(InvalidRequestId::Length(0)));
        assert_eq!(
            RequestId::new(&"x".repeat(129)),
            Err(InvalidRequestId::Length(129))
        );
        assert_eq!(RequestId::new("a b"), Err(InvalidRequestId::Character(1)));
        assert_eq!(
            RequestId::new("a\r\nb"),
            Err(InvalidRequestId::Character(1))
        );
        assert_eq!(RequestId::new("é"), Err(InvalidRequestId::Character(0)));
        assert_eq!(RequestId::from_random(255).as_str().len(), 32);
    }
}
