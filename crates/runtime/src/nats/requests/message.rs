//! How a session looks in messages.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use forebay_mux::session::{Packet, Preface};

/// Bytes before the frames of a packet.
pub(super) const HEADER_BYTES: usize = 1 + 8;

/// The first byte of a message that opens a session or goes on with one.
const PREFACE: u8 = 1;
/// The first byte of a message of frames.
const PACKET: u8 = 2;
/// The only byte of a message that asks for a hello.
const UNATTACHED: u8 = 3;

/// One message of a session. Which session it is of, its subject says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A hello or a refusal.
    Preface(Preface),
    /// Frames, after the place of the first in the session's sequence (8 bytes, big-endian).
    Packet(Packet),
    /// A server got a packet and has no link for it: the client is to say hello again.
    Unattached,
}

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Preface(preface) => {
                let preface = preface.encode();
                let mut bytes = BytesMut::with_capacity(1 + preface.len());
                bytes.put_u8(PREFACE);
                bytes.put_slice(&preface);
                bytes.freeze()
            }
            Self::Packet(packet) => {
                let mut bytes = BytesMut::with_capacity(HEADER_BYTES + packet.bytes.len());
                bytes.put_u8(PACKET);
                bytes.put_u64(packet.first_sequence);
                bytes.put_slice(&packet.bytes);
                bytes.freeze()
            }
            Self::Unattached => Bytes::from_static(&[UNATTACHED]),
        }
    }

    /// Nothing, if it is no message that this version understands.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            PREFACE => {
                let preface = Preface::decode(&mut BytesMut::from(&bytes[..]));
                preface.ok()?.map(Self::Preface)
            }
            PACKET => Some(Self::Packet(Packet {
                first_sequence: bytes.try_get_u64().ok()?,
                bytes,
            })),
            UNATTACHED => Some(Self::Unattached),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_mux::session::Refusal;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let packet = Packet {
            first_sequence: 1 << 40,
            bytes: Bytes::from_static(b"frames"),
        };
        for message in [
            Message::Packet(packet),
            Message::Preface(Preface::Refused(Refusal::Stopping)),
            Message::Unattached,
        ] {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Message::decode(Bytes::from(bytes));
        }
    }
}
