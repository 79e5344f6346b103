//! What goes out, and in which order.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Session;
use super::config::{Mode, Role};
use super::frame::{Frame, Kind, TARGET};
use super::link::State;
use super::output::{Output, Packet};
use super::stream::Stop;
use super::streams::Lane;

/// So much that arrived is acknowledged at once; less waits for something else to be sent.
const ACK_BYTES: usize = 64 << 10;
/// The same, in frames.
const ACK_FRAMES: u64 = 64;

impl Session {
    /// Appends what is to be sent now to `out`, to be written in this order; returns how many bytes
    /// that is. About `limit_bytes` at most: a frame that is longer goes alone. Nothing is left to
    /// be sent when it returns 0.
    ///
    /// Small frames are put together; large payloads are passed on as they are, so that one vectored
    /// write can take them all. What is in `out` counts as sent: if the connection fails before it is
    /// written, it is sent again on the next one.
    pub fn transmit(&mut self, now: Duration, limit_bytes: usize, out: &mut Vec<Bytes>) -> usize {
        debug_assert_eq!(self.config.mode, Mode::Bytes);
        let scratch = std::mem::take(&mut self.scratch);
        let mut output = Output::new(out, scratch, limit_bytes, true);
        self.fill(&mut output);
        let bytes = output.bytes();
        self.scratch = output.finish();
        self.sent(now, bytes);
        bytes
    }

    /// The next packet to be sent, of about `limit_bytes` at most: give at least
    /// [`Config::chunk_bytes`](super::Config::chunk_bytes) and [`MAX_ERROR_BYTES`](super::MAX_ERROR_BYTES),
    /// and 64 bytes less than the link can carry. `None` if there is nothing to be sent.
    pub fn transmit_packet(&mut self, now: Duration, limit_bytes: usize) -> Option<Packet> {
        debug_assert_eq!(self.config.mode, Mode::Packets);
        let first_sequence = self.log.next_sequence();
        let mut parts = Vec::with_capacity(1);
        let mut output = Output::new(&mut parts, BytesMut::new(), limit_bytes, false);
        self.fill(&mut output);
        let bytes = output.bytes();
        output.finish();
        self.sent(now, bytes);
        let bytes = parts.pop()?;
        Some(Packet {
            first_sequence,
            bytes,
        })
    }

    /// Whether there is something to be sent now: whether the driver is to be woken.
    pub fn has_output(&self) -> bool {
        match self.link.state {
            State::Attached => {
                let has_data = self.streams.front(Lane::Data).is_some()
                    && self.log.bytes() < self.config.max_unacknowledged_bytes;
                let has_control =
                    !self.farewells.is_empty() || self.streams.front(Lane::Control).is_some();
                has_data
                    || (has_control && self.has_room())
                    || self.link.resume_due
                    || self.link.heartbeat_due
                    || self.log.unsent().is_some()
                    || self.owes_acknowledgement()
            }
            State::Closing => true,
            _ => false,
        }
    }

    fn sent(&mut self, now: Duration, bytes: usize) {
        if bytes > 0 {
            self.link.last_sent = now;
            self.link.heartbeat_due = false;
        }
    }

    fn fill(&mut self, output: &mut Output<'_>) {
        match self.link.state {
            State::Attached => {}
            State::Closing => {
                output.put_link(Kind::Close, None);
                self.link.lose();
                return;
            }
            _ => return,
        }
        if std::mem::take(&mut self.link.resume_due) {
            output.put_link(Kind::Resume, Some(self.received));
        }
        if self.link.heartbeat_due || self.owes_acknowledgement() {
            output.put_link(Kind::Ack, Some(self.received));
            self.acknowledged = self.received;
            self.unacknowledged_bytes = 0;
        }
        while let Some(frame) = self.log.unsent() {
            if !output.fits(frame.payload.len()) {
                return;
            }
            output.put(frame);
            self.log.advance();
        }
        if self.fill_farewells(output) && self.fill_control(output) {
            self.fill_data(output);
        }
    }

    fn owes_acknowledgement(&self) -> bool {
        let frames = self.received - self.acknowledged;
        let speaks = self.log.unsent().is_some()
            || !self.farewells.is_empty()
            || self.streams.front(Lane::Control).is_some()
            || self.streams.front(Lane::Data).is_some();
        frames > 0 && (speaks || frames >= ACK_FRAMES || self.unacknowledged_bytes >= ACK_BYTES)
    }

    /// Each of these: `false` if not all went, for lack of room.
    fn fill_farewells(&mut self, output: &mut Output<'_>) -> bool {
        while let Some(target) = self.farewells.front() {
            if !self.has_room() || !output.fits(target.as_ref().map_or(0, Bytes::len)) {
                return false;
            }
            let target = self.farewells.pop_front().expect("it has a front");
            let flags = if target.is_some() { TARGET } else { 0 };
            let mut frame = Frame::new(Kind::GoAway, 0, target.unwrap_or_default());
            frame.flags = flags;
            self.put(output, frame);
        }
        true
    }

    fn fill_control(&mut self, output: &mut Output<'_>) -> bool {
        while let Some(slot) = self.streams.front(Lane::Control) {
            let stream = self.streams.get(slot);
            let id = stream.id;
            let longest = stream.open.as_ref().or(stream.reset.as_ref());
            let payload_bytes = longest.map_or(4, Bytes::len);
            if !self.has_room() || !output.fits(payload_bytes) {
                return false;
            }
            let stream = self.streams.get_mut(slot);
            if let Some(target) = stream.open.take() {
                self.last_opened = id;
                self.put(output, Frame::new(Kind::Open, id, target));
                self.link_data(slot);
            } else if let Some(error) = stream.reset.take() {
                self.streams.remove(slot);
                self.put(output, Frame::new(Kind::Reset, id, error));
                continue;
            } else if stream.stop == Stop::Due {
                stream.stop = Stop::Told;
                self.put(output, Frame::new(Kind::Stop, id, Bytes::new()));
            } else if stream.owes_credit(&self.config) {
                let credit = stream.take_consumed();
                self.put(output, Frame::credit(id, credit));
            }
            let stream = self.streams.get(slot);
            if stream.stop == Stop::Due || stream.owes_credit(&self.config) {
                continue;
            }
            self.streams.unlink(Lane::Control, slot);
        }
        true
    }

    /// Streams in turn, a chunk's worth of messages each.
    fn fill_data(&mut self, output: &mut Output<'_>) {
        let (chunk_bytes, window) = (
            self.config.chunk_bytes.into(),
            self.link.peer().window_bytes,
        );
        while let Some(slot) = self.streams.front(Lane::Data) {
            let mut turn = 0;
            let mut reset = false;
            while turn < chunk_bytes {
                let stream = self.streams.get_mut(slot);
                if !stream.has_frame(chunk_bytes, window) {
                    break;
                }
                let payload_bytes = stream.next_bytes(chunk_bytes);
                if self.log.bytes() >= self.config.max_unacknowledged_bytes
                    || !output.fits(payload_bytes)
                {
                    return;
                }
                let frame = stream.next_frame(chunk_bytes);
                reset = frame.kind == Kind::Reset;
                turn += frame.wire_bytes();
                self.put(output, frame);
            }
            if reset {
                self.streams.remove(slot);
                continue;
            }
            self.streams.unlink(Lane::Data, slot);
            self.link_data(slot);
            self.wake(slot);
            self.remove_if_over(slot);
        }
    }

    /// Whether control frames may be sent; for data there is half as much room.
    fn has_room(&self) -> bool {
        self.log.bytes() < 2 * self.config.max_unacknowledged_bytes
    }

    fn put(&mut self, output: &mut Output<'_>, frame: Frame) {
        debug_assert!(frame.stream <= self.last_opened || self.role == Role::Server);
        output.put(&frame);
        self.log.push_sent(frame);
    }
}
