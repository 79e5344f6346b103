//! How an event looks on the wire.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use forebay_tokens::WorkerId;

use crate::event_plane::Stamp;

/// The form; a reader drops messages of another.
const VERSION: u8 = 1;
/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 1 + 3 * 8 + 3 * 4;

/// One message: an event, or a part of one that is too large for a message.
///
/// All numbers are little-endian: the version (1 byte), publisher, epoch and sequence (8 each), how
/// many events before this one were never sent, the size of the event's whole payload and this
/// part's offset in it (4 each), then the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) stamp: Stamp,
    /// Events right before this one that the publisher's queue had no room for.
    pub(super) unsent: u32,
    /// The size of the whole payload.
    pub(super) payload_bytes: u32,
    /// Where `part` stands in it.
    pub(super) offset: u32,
    pub(super) part: Bytes,
}

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + self.part.len());
        bytes.put_u8(VERSION);
        bytes.put_u64_le(self.stamp.publisher.0);
        bytes.put_u64_le(self.stamp.epoch);
        bytes.put_u64_le(self.stamp.sequence);
        bytes.put_u32_le(self.unsent);
        bytes.put_u32_le(self.payload_bytes);
        bytes.put_u32_le(self.offset);
        bytes.put_slice(&self.part);
        bytes.freeze()
    }

    /// Nothing, if it is no message of this version.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || bytes.get_u8() != VERSION {
            return None;
        }
        let message = Self {
            stamp: Stamp {
                publisher: WorkerId(bytes.get_u64_le()),
                epoch: bytes.get_u64_le(),
                sequence: bytes.get_u64_le(),
            },
            unsent: bytes.get_u32_le(),
            payload_bytes: bytes.get_u32_le(),
            offset: bytes.get_u32_le(),
            part: bytes,
        };
        let end = u64::from(message.offset) + message.part.len() as u64;
        (end <= u64::from(message.payload_bytes)).then_some(message)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = Message {
            stamp: Stamp {
                publisher: WorkerId(7),
                epoch: u64::MAX,
                sequence: 1 << 40,
            },
            unsent: 3,
            payload_bytes: 9,
            offset: 4,
            part: Bytes::from_static(b"parts"),
        };
        let bytes = message.encode();
        assert_eq!(bytes.len(), HEADER_BYTES + 5);
        assert_eq!(Message::decode(bytes.clone()), Some(message));

        let mut other = bytes.to_vec();
        other[0] = 2;
        assert_eq!(Message::decode(other.into()), None);
        assert_eq!(Message::decode(bytes.slice(..HEADER_BYTES - 1)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            if let Some(message) = Message::decode(bytes.clone()) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
