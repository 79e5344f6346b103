use bytes::{BufMut, Bytes, BytesMut};

use super::error::ProtocolError;

/// Before each payload: kind, flags, length of the payload (16 bits), stream (32 bits); big-endian.
pub(super) const HEADER_BYTES: usize = 8;

/// Of [`Kind::Data`]: the message ends with this chunk.
pub(super) const LAST: u8 = 0x01;
/// Of [`Kind::GoAway`]: for the one target that the payload names.
pub(super) const TARGET: u8 = 0x01;
/// Flags that a reader may pass over without knowing them.
const IGNORABLE: u8 = 0xf0;

/// What a frame is. Those from 16 on are the link's own: without a place in the session's
/// sequence, and never sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A stream begins; the payload is its target.
    Open = 1,
    /// A chunk of a message.
    Data = 2,
    /// The sender's last frame of a stream.
    Finish = 3,
    /// A stream ends in both directions; the payload is why.
    Reset = 4,
    /// So many bytes (32 bits) more may be sent.
    Credit = 5,
    /// No new streams, please.
    GoAway = 6,
    /// What the sender of this asked for is to end soon, with what there is.
    Stop = 7,
    /// So many frames (64 bits) have arrived; also says that the sender is there.
    Ack = 16,
    /// Packets were lost: send again from here (64 bits).
    Resume = 17,
    /// The session ends.
    Close = 18,
}

impl Kind {
    fn of(byte: u8) -> Result<Self, ProtocolError> {
        Ok(match byte {
            1 => Self::Open,
            2 => Self::Data,
            3 => Self::Finish,
            4 => Self::Reset,
            5 => Self::Credit,
            6 => Self::GoAway,
            7 => Self::Stop,
            16 => Self::Ack,
            17 => Self::Resume,
            18 => Self::Close,
            _ => return Err(ProtocolError::UnknownKind(byte)),
        })
    }

    /// Whether frames of this kind count in the session's sequence.
    pub(super) fn is_sequenced(self) -> bool {
        (self as u8) < Self::Ack as u8
    }

    fn flags(self) -> u8 {
        match self {
            Self::Data => LAST,
            Self::GoAway => TARGET,
            _ => 0,
        }
    }
}

/// What is before a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) length: usize,
    pub(super) stream: u32,
}

impl Header {
    /// # Errors
    /// An unknown kind, or a flag that must be known.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ProtocolError> {
        let [kind, flags, l0, l1, s0, s1, s2, s3] = *bytes;
        let kind = Kind::of(kind)?;
        if flags & !IGNORABLE & !kind.flags() != 0 {
            return Err(ProtocolError::UnknownFlags(flags));
        }
        Ok(Self {
            kind,
            flags,
            length: u16::from_be_bytes([l0, l1]).into(),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }
}

/// A frame as it waits to be acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// At most 65,535 bytes.
    pub(super) payload: Bytes,
}

impl Frame {
    pub(super) fn new(kind: Kind, stream: u32, payload: Bytes) -> Self {
        Self {
            kind,
            flags: 0,
            stream,
            payload,
        }
    }

    pub(super) fn credit(stream: u32, bytes: u32) -> Self {
        let payload = Bytes::copy_from_slice(&bytes.to_be_bytes());
        Self::new(Kind::Credit, stream, payload)
    }

    /// Of the whole frame on the wire.
    pub(super) fn wire_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    pub(super) fn put_header(&self, out: &mut BytesMut) {
        let length = u16::try_from(self.payload.len()).expect("payloads are cut to 16 bits");
        put_header(out, self.kind, self.flags, length, self.stream);
    }
}

/// A frame of the link's own, whole.
pub(super) fn put_link(out: &mut BytesMut, kind: Kind, count: Option<u64>) {
    put_header(out, kind, 0, if count.is_some() { 8 } else { 0 }, 0);
    if let Some(count) = count {
        out.put_u64(count);
    }
}

fn put_header(out: &mut BytesMut, kind: Kind, flags: u8, length: u16, stream: u32) {
    let [l0, l1] = length.to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.put_slice(&[kind as u8, flags, l0, l1, s0, s1, s2, s3]);
}
