use bytes::{Bytes, BytesMut};

use super::frame::{Frame, HEADER_BYTES, Kind, put_link};

/// A payload up to this long is copied beside its header; a longer one goes as it is.
const COPIED_BYTES: usize = 1024;
/// Room for headers and small payloads that is made at once.
const SCRATCH_BYTES: usize = 4096;

/// Frames as one message, for a link of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Place in the session's sequence of the first frame that has one, or of the next to come.
    pub first_sequence: u64,
    /// Whole frames.
    pub bytes: Bytes,
}

/// Frames on their way out: headers and small payloads together, large payloads by reference.
pub(super) struct Output<'a> {
    parts: &'a mut Vec<Bytes>,
    scratch: BytesMut,
    by_reference: bool,
    limit: usize,
    bytes: usize,
    frames: usize,
}

impl<'a> Output<'a> {
    /// Of up to `limit` bytes, but for one frame and what the link has to say.
    pub(super) fn new(
        parts: &'a mut Vec<Bytes>,
        mut scratch: BytesMut,
        limit: usize,
        by_reference: bool,
    ) -> Self {
        if scratch.capacity() < SCRATCH_BYTES / 4 {
            scratch.reserve(SCRATCH_BYTES);
        }
        Self {
            parts,
            scratch,
            by_reference,
            limit,
            bytes: 0,
            frames: 0,
        }
    }

    /// Of all so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a frame of so much payload may go.
    pub(super) fn fits(&self, payload_bytes: usize) -> bool {
        self.frames == 0 || self.bytes + HEADER_BYTES + payload_bytes <= self.limit
    }

    pub(super) fn put(&mut self, frame: &Frame) {
        self.frames += 1;
        self.bytes += frame.wire_bytes();
        frame.put_header(&mut self.scratch);
        if self.by_reference && frame.payload.len() > COPIED_BYTES {
            self.parts.push(self.scratch.split().freeze());
            self.parts.push(frame.payload.clone());
        } else {
            self.scratch.extend_from_slice(&frame.payload);
        }
    }

    pub(super) fn put_link(&mut self, kind: Kind, count: Option<u64>) {
        let before = self.scratch.len();
        put_link(&mut self.scratch, kind, count);
        self.bytes += self.scratch.len() - before;
    }

    /// Hands over the last part; returns the room that is left, for the next time.
    pub(super) fn finish(mut self) -> BytesMut {
        if !self.scratch.is_empty() {
            self.parts.push(self.scratch.split().freeze());
        }
        self.scratch
    }
}
