use std::collections::VecDeque;

use super::error::ProtocolError;
use super::frame::Frame;

/// What a frame costs here beside its payload, bytes.
const FRAME_COST: usize = 64;
/// Room that an empty log keeps, frames.
const KEPT_CAPACITY: usize = 256;

/// Frames that were sent and not acknowledged, in sequence, and from where on they have to be sent
/// on the connection that is.
#[derive(Debug, Default)]
pub(super) struct Log {
    frames: VecDeque<Frame>,
    /// Sequence number of the first of them.
    first: u64,
    /// So many of them were sent on this connection.
    sent: usize,
    bytes: usize,
}

impl Log {
    /// Memory it holds, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sequence number of the next frame that goes out on this connection.
    pub(super) fn next_sequence(&self) -> u64 {
        self.first + self.sent as u64
    }

    /// Adds a frame that has been sent; all before it were sent, too.
    pub(super) fn push_sent(&mut self, frame: Frame) {
        debug_assert_eq!(self.sent, self.frames.len());
        self.bytes += FRAME_COST + frame.payload.len();
        self.frames.push_back(frame);
        self.sent += 1;
    }

    /// The next frame to be sent again.
    pub(super) fn unsent(&self) -> Option<&Frame> {
        self.frames.get(self.sent)
    }

    /// It went out.
    pub(super) fn advance(&mut self) {
        self.sent += 1;
    }

    /// The peer has all before `sequence`. An old word changes nothing.
    ///
    /// # Errors
    /// If there never was so much.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> Result<(), ProtocolError> {
        let Some(count) = sequence.checked_sub(self.first) else {
            return Ok(());
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.frames.len() {
            return Err(ProtocolError::Sequence(sequence));
        }
        for frame in self.frames.drain(..count) {
            self.bytes -= FRAME_COST + frame.payload.len();
        }
        self.first = sequence;
        self.sent = self.sent.saturating_sub(count);
        if self.frames.is_empty() && self.frames.capacity() > KEPT_CAPACITY {
            self.frames.shrink_to(KEPT_CAPACITY);
        }
        Ok(())
    }

    /// The peer has all before `sequence` and wants what comes then, again.
    ///
    /// # Errors
    /// If that never was, or is not kept any more.
    pub(super) fn rewind(&mut self, sequence: u64) -> Result<(), ProtocolError> {
        if sequence < self.first {
            return Err(ProtocolError::Sequence(sequence));
        }
        self.acknowledge(sequence)?;
        self.sent = 0;
        Ok(())
    }

    /// The same, but for a word so old that what it asks for has long arrived.
    ///
    /// # Errors
    /// If it asks for what never was.
    pub(super) fn rewind_if_kept(&mut self, sequence: u64) -> Result<(), ProtocolError> {
        if sequence < self.first {
            return Ok(());
        }
        self.rewind(sequence)
    }
}
