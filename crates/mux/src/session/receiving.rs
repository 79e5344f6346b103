//! What comes in.

use std::time::Duration;

use bytes::{Buf, Bytes};

use super::config::{Mode, Role};
use super::error::ProtocolError;
use super::event::{Event, LostCause, StreamId};
use super::frame::{HEADER_BYTES, Header, Kind, LAST, TARGET};
use super::output::Packet;
use super::stream::{Sending, Stop, Stream};
use super::{MAX_ERROR_BYTES, MAX_TARGET_BYTES, Session};

/// A payload shorter than this is copied out of what was read, so that a consumer who is slow to
/// take a few bytes does not keep all of that.
const COPIED_BYTES: usize = 4096;

impl Session {
    /// Takes bytes as they come, cut anywhere. Large payloads are passed on as parts of `bytes`.
    /// Does nothing without a connection.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`], and the session is lost; the connection is to be closed.
    pub fn receive(&mut self, now: Duration, bytes: Bytes) -> Result<(), ProtocolError> {
        debug_assert_eq!(self.config.mode, Mode::Bytes);
        if bytes.is_empty() || !self.link.is_attached() {
            return Ok(());
        }
        self.link.heard(now + self.config.silence);
        let taken = self.take_bytes(bytes);
        self.or_lost(taken)
    }

    /// Takes a packet. One that came before is passed over; after one that is missing, the peer is
    /// asked to send again from there. Does nothing without a connection.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`], and the session is lost.
    pub fn receive_packet(&mut self, now: Duration, packet: Packet) -> Result<(), ProtocolError> {
        debug_assert_eq!(self.config.mode, Mode::Packets);
        if !self.link.is_attached() {
            return Ok(());
        }
        self.link.heard(now + self.config.silence);
        self.mind_gap(now, packet.first_sequence);
        let taken = self.take_packet(packet);
        self.or_lost(taken)
    }

    fn or_lost(&mut self, taken: Result<(), ProtocolError>) -> Result<(), ProtocolError> {
        if let Err(error) = taken {
            self.lose(LostCause::Protocol(error));
        }
        taken
    }

    /// Asks for what is missing before a packet, if anything is. Not more often than twice in a
    /// heartbeat, as the same gap shows with every packet until it is closed.
    fn mind_gap(&mut self, now: Duration, first_sequence: u64) {
        if first_sequence <= self.received {
            self.link.asked_at = None;
            return;
        }
        let again_at = (self.link.asked_at).map(|at| at + self.config.heartbeat / 2);
        if again_at.is_none_or(|at| now >= at) {
            self.link.resume_due = true;
            self.link.asked_at = Some(now);
        }
    }

    fn take_packet(&mut self, packet: Packet) -> Result<(), ProtocolError> {
        let Packet {
            first_sequence: mut sequence,
            mut bytes,
        } = packet;
        while !bytes.is_empty() && self.link.is_attached() {
            let header = bytes.first_chunk().ok_or(ProtocolError::Truncated)?;
            let header = Header::decode(header)?;
            bytes.advance(HEADER_BYTES);
            if bytes.len() < header.length {
                return Err(ProtocolError::Truncated);
            }
            if header.kind.is_sequenced() {
                let is_next = sequence == self.received;
                sequence = sequence.wrapping_add(1);
                if !is_next {
                    bytes.advance(header.length);
                    continue;
                }
            }
            self.take_frame(header, &mut bytes)?;
        }
        Ok(())
    }

    fn take_bytes(&mut self, mut bytes: Bytes) -> Result<(), ProtocolError> {
        while !bytes.is_empty() && self.link.is_attached() {
            if self.partial.is_empty()
                && let Some(header) = bytes.first_chunk()
            {
                let header = Header::decode(header)?;
                if bytes.len() >= HEADER_BYTES + header.length {
                    bytes.advance(HEADER_BYTES);
                    self.take_frame(header, &mut bytes)?;
                    continue;
                }
            }
            self.take_part(&mut bytes)?;
        }
        Ok(())
    }

    /// Goes on with a frame of which only a part was there.
    fn take_part(&mut self, bytes: &mut Bytes) -> Result<(), ProtocolError> {
        if !self.fill_partial(bytes, HEADER_BYTES) {
            return Ok(());
        }
        let header = self.partial.first_chunk().expect("it is filled so far");
        let header = Header::decode(header)?;
        if !self.fill_partial(bytes, HEADER_BYTES + header.length) {
            return Ok(());
        }
        let mut frame = self.partial.split().freeze();
        frame.advance(HEADER_BYTES);
        self.take_frame(header, &mut frame)
    }

    /// Moves bytes to the partial frame until it has so many; `false` if they do not suffice.
    fn fill_partial(&mut self, bytes: &mut Bytes, length: usize) -> bool {
        let missing = length.saturating_sub(self.partial.len());
        self.partial.reserve(missing);
        let part = bytes.split_to(missing.min(bytes.len()));
        self.partial.extend_from_slice(&part);
        part.len() == missing
    }

    /// A frame whose payload begins `bytes`, which has all of it.
    fn take_frame(&mut self, header: Header, bytes: &mut Bytes) -> Result<(), ProtocolError> {
        if header.kind.is_sequenced() {
            self.received += 1;
            self.unacknowledged_bytes += header.length;
        }
        let (id, length) = (header.stream, header.length);
        match header.kind {
            Kind::Data => self.take_chunk(id, take(bytes, length), header.flags & LAST != 0),
            Kind::Open => self.take_open(id, take(bytes, length)),
            Kind::Finish => {
                bytes.advance(length);
                self.take_finish(id)
            }
            Kind::Reset => self.take_reset(id, take(bytes, length)),
            Kind::Stop => {
                bytes.advance(length);
                self.take_stop(id)
            }
            Kind::Credit => {
                let credit = number(bytes, length).map(u32::from_be_bytes)?;
                self.take_credit(id, credit)
            }
            Kind::GoAway => {
                let target = take(bytes, length);
                self.take_go_away((header.flags & TARGET != 0).then_some(target))
            }
            Kind::Ack => {
                let count = number(bytes, length).map(u64::from_be_bytes)?;
                self.log.acknowledge(count)
            }
            Kind::Resume => {
                let count = number(bytes, length).map(u64::from_be_bytes)?;
                self.take_resume(count)
            }
            Kind::Close => {
                bytes.advance(length);
                self.lose(LostCause::Closed);
                Ok(())
            }
        }
    }

    fn take_open(&mut self, id: u32, target: Bytes) -> Result<(), ProtocolError> {
        if self.role == Role::Client {
            return Err(ProtocolError::Role);
        }
        if id <= self.last_opened {
            return Err(ProtocolError::IdBackwards(id));
        }
        if target.len() > MAX_TARGET_BYTES {
            return Err(ProtocolError::Length(target.len()));
        }
        if self.streams.len() >= self.config.max_streams as usize {
            return Err(ProtocolError::TooManyStreams(self.config.max_streams));
        }
        self.last_opened = id;
        let (credit, window) = (self.link.peer().window_bytes, self.config.window_bytes);
        self.streams.insert(Stream::new(id, credit, window, None));
        let id = StreamId(id);
        self.events.push_back(Event::Opened { id, target });
        Ok(())
    }

    fn take_chunk(&mut self, id: u32, bytes: Bytes, last: bool) -> Result<(), ProtocolError> {
        let Some(slot) = self.find_opened(id)? else {
            return Ok(());
        };
        let stream = self.streams.get_mut(slot);
        if stream.finished {
            return Err(ProtocolError::AfterFinish(id));
        }
        if !stream.received(bytes.len()) {
            return Err(ProtocolError::OverCredit(id));
        }
        if !stream.deaf {
            let id = StreamId(id);
            self.events.push_back(Event::Chunk { id, bytes, last });
        }
        Ok(())
    }

    fn take_finish(&mut self, id: u32) -> Result<(), ProtocolError> {
        let Some(slot) = self.find_opened(id)? else {
            return Ok(());
        };
        let stream = self.streams.get_mut(slot);
        if std::mem::replace(&mut stream.finished, true) {
            return Err(ProtocolError::AfterFinish(id));
        }
        if !stream.deaf {
            let id = StreamId(id);
            self.events.push_back(Event::Finished { id });
        }
        self.remove_if_over(slot);
        Ok(())
    }

    fn take_reset(&mut self, id: u32, error: Bytes) -> Result<(), ProtocolError> {
        if error.len() > MAX_ERROR_BYTES {
            return Err(ProtocolError::Length(error.len()));
        }
        let Some(slot) = self.find_opened(id)? else {
            return Ok(());
        };
        if !self.streams.get(slot).deaf {
            let id = StreamId(id);
            self.events.push_back(Event::Reset { id, error });
        }
        self.streams.remove(slot);
        Ok(())
    }

    fn take_stop(&mut self, id: u32) -> Result<(), ProtocolError> {
        if self.role == Role::Client {
            return Err(ProtocolError::Role);
        }
        let Some(slot) = self.find_opened(id)? else {
            return Ok(());
        };
        let stream = self.streams.get_mut(slot);
        let is_news = std::mem::replace(&mut stream.stop, Stop::Told) != Stop::Told;
        if is_news && !stream.deaf {
            let id = StreamId(id);
            self.events.push_back(Event::Stopped { id });
        }
        Ok(())
    }

    fn take_credit(&mut self, id: u32, credit: u32) -> Result<(), ProtocolError> {
        let Some(slot) = self.find_opened(id)? else {
            return Ok(());
        };
        let window = self.link.peer().window_bytes;
        if !self.streams.get_mut(slot).add_credit(credit, window) {
            return Err(ProtocolError::OverWindow(id));
        }
        self.link_data(slot);
        self.wake(slot);
        Ok(())
    }

    fn take_go_away(&mut self, target: Option<Bytes>) -> Result<(), ProtocolError> {
        if self.role == Role::Server {
            return Err(ProtocolError::Role);
        }
        self.going_away |= target.is_none();
        self.events.push_back(Event::GoAway { target });
        Ok(())
    }

    fn take_resume(&mut self, sequence: u64) -> Result<(), ProtocolError> {
        match self.config.mode {
            Mode::Bytes => Err(ProtocolError::UnknownKind(Kind::Resume as u8)),
            Mode::Packets => self.log.rewind_if_kept(sequence),
        }
    }

    /// The slot of a stream that both ends know of; `None` if it has ended here, which what the peer
    /// sends may cross.
    fn find_opened(&self, id: u32) -> Result<Option<u32>, ProtocolError> {
        if id == 0 || id > self.last_opened {
            return Err(ProtocolError::UnknownStream(id));
        }
        Ok(self.streams.find(id))
    }

    /// Lets go of a stream whose halves have both ended.
    pub(super) fn remove_if_over(&mut self, slot: u32) {
        let stream = self.streams.get(slot);
        let sent_all = matches!(stream.sending, Sending::Done) && stream.reset.is_none();
        if stream.finished && sent_all {
            self.streams.remove(slot);
        }
    }
}

/// A payload, off the front of `bytes`.
fn take(bytes: &mut Bytes, length: usize) -> Bytes {
    if length >= COPIED_BYTES {
        return bytes.split_to(length);
    }
    let payload = Bytes::copy_from_slice(&bytes[..length]);
    bytes.advance(length);
    payload
}

/// A payload that is one number.
fn number<const N: usize>(bytes: &mut Bytes, length: usize) -> Result<[u8; N], ProtocolError> {
    if length != N {
        return Err(ProtocolError::Length(length));
    }
    let number = *bytes.first_chunk().expect("all of the payload is there");
    bytes.advance(N);
    Ok(number)
}
