//! Streams between a client process and a server process, over one connection at a time.
//!
//! A [`Session`] is one end. The client opens streams, each for a *target* at the server; both ends
//! send messages on it. A message is cut into chunks, which take turns with those of other streams
//! and arrive as soon as they can: there is no buffer as large as a message (an [`Assembler`] makes
//! messages of chunks where they are wanted). Each stream has *credit* in each direction, so a slow
//! consumer stops its own producer and nobody else. Whatever steers (credit, resets, stops, the word
//! that a server goes away) needs no credit and goes first.
//!
//! **Cut connections.** Each frame has a place in the session's sequence, without saying it, and is
//! kept until the peer has acknowledged it. When a connection is cut, the next one begins with each
//! end saying how much has arrived, and goes on from there: nothing is lost and nothing comes
//! twice, on any stream. Over packets ([`Mode::Packets`]) the first frame's place is said with each
//! packet, and a gap is asked for again.
//!
//! **Driving it.** Time is a [`Duration`](std::time::Duration) since any fixed moment, the same for all calls.
//!
//! 1. Send [`Session::hello`] as a [`Preface`], read the peer's, call [`Session::attach`].
//! 2. Bytes that come go to [`Session::receive`]; [`Session::transmit`] gives those that go, and is
//!    called again after anything else was.
//! 3. After each call, take what [`Session::next_event`] has.
//! 4. At [`Session::next_timeout`], read what there is to read, then call
//!    [`Session::handle_timeout`].
//! 5. When the connection ends, call [`Session::detach`], and make another, until
//!    [`Event::Lost`].
//!
//! A consumer says [`Session::consumed`] for each chunk that it took; a producer calls
//! [`Session::send`] while [`Session::is_writable`], and then waits for [`Event::Writable`].
//!
//! **On the wire** all numbers are big-endian. A connection begins with a [`Preface`] each way:
//!
//! | bytes | |
//! |---|---|
//! | 4 | `FMUX` |
//! | 1 | version of the protocol: 1 |
//! | 1 | 0: a [`Hello`] follows; else a [`Refusal`]: 1 version, 2 incarnation, 3 unknown session, 4 sequence, 5 too many connections, 6 stopping |
//! | 2 | length of what follows |
//! | 1 | flags: 1 resumes, 2 from the server, 4 packets, 8 expects an incarnation |
//! | 4, 8, 8, 8, 8, 4, 4 | features, session, incarnation, expected incarnation, frames received, window in bytes, most streams |
//! | any | from later programs; to be passed over |
//!
//! Then come frames: kind (8 bits), flags (8), length of the payload (16), stream (32), payload.
//! Flags from 16 on may be passed over if they are unknown.
//!
//! | kind | | from | payload |
//! |---|---|---|---|
//! | 1 | open | client | target |
//! | 2 | data; flag 1: the last chunk of its message | both | chunk |
//! | 3 | finish | both | none; passed over |
//! | 4 | reset | both | error |
//! | 5 | credit | both | bytes (32 bits) |
//! | 6 | go away; flag 1: one target only | server | target |
//! | 7 | stop: end the stream soon, with what there is | client | none; passed over |
//! | 16 | acknowledgement and heartbeat | both | frames received (64 bits) |
//! | 17 | send again (packets only) | both | frames received (64 bits) |
//! | 18 | close | both | none; passed over |
//!
//! Frames below 16 count in the sequence. A chunk costs its bytes and [`CHUNK_COST`] of credit.
//!
//! **Bounds.** For each stream, what waits to be sent is bounded by credit and by
//! [`Config::window_bytes`] (and a message more), what has come and is not consumed by the same;
//! what is not acknowledged by [`Config::max_unacknowledged_bytes`]. A peer that does not keep to the protocol
//! ends the session with a [`ProtocolError`].

mod assembler;
mod config;
mod error;
mod event;
mod frame;
mod link;
mod liveness;
mod log;
mod output;
mod preface;
mod receiving;
mod stream;
mod streams;
mod transmitting;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

pub use assembler::{Assembler, TooLong};
pub use config::{Config, Mode, Role};
pub use error::{OpenError, PrefaceError, ProtocolError, SendError, SendErrorKind};
pub use event::{DetachCause, Event, LostCause, StreamId};
pub use output::Packet;
pub use preface::{Features, Hello, Incarnation, Preface, Refusal, SessionId};

use link::Link;
use log::Log;
use stream::{End, Sending, Stop, Stream};
use streams::{Lane, Streams};

/// What a chunk costs beside its bytes, in credit. It stands for the memory that one takes even if
/// it is empty.
pub const CHUNK_COST: usize = 32;
/// The longest target of a stream, bytes.
pub const MAX_TARGET_BYTES: usize = 4096;
/// The longest error that a stream ends with, bytes. A longer one is cut there.
pub const MAX_ERROR_BYTES: usize = 8192;

/// One end of a session. See the [module](self).
#[derive(Debug)]
pub struct Session {
    role: Role,
    config: Config,
    id: SessionId,
    incarnation: Incarnation,
    link: Link,
    streams: Streams,
    /// The highest stream id so far: given out here (client), or opened by the peer (server).
    last_id: u32,
    /// The highest stream id that both ends know of.
    last_opened: u32,
    /// Client: the server goes away. Server: it has said so.
    going_away: bool,
    /// Words to the client that wait to be sent: the whole server, or one target.
    farewells: VecDeque<Option<Bytes>>,
    log: Log,
    /// Frames that arrived.
    received: u64,
    /// As much of it as the peer knows, or will.
    acknowledged: u64,
    /// Payload of what it does not know.
    unacknowledged_bytes: usize,
    /// A frame of which only a part has arrived.
    partial: BytesMut,
    /// Headers and small payloads on their way out.
    scratch: BytesMut,
    events: VecDeque<Event>,
}

impl Session {
    /// A new session at the client's end, without a connection.
    pub fn client(config: Config, id: SessionId, incarnation: Incarnation) -> Self {
        Self::new(Role::Client, config, id, incarnation)
    }

    /// A new session at the server's end, for a client whose hello named it. Still to be attached,
    /// with that hello.
    pub fn server(config: Config, id: SessionId, incarnation: Incarnation) -> Self {
        Self::new(Role::Server, config, id, incarnation)
    }

    fn new(role: Role, config: Config, id: SessionId, incarnation: Incarnation) -> Self {
        let config = config.clamped();
        Self {
            role,
            link: Link::new(&config),
            config,
            id,
            incarnation,
            streams: Streams::new(),
            last_id: 0,
            last_opened: 0,
            going_away: false,
            farewells: VecDeque::new(),
            log: Log::default(),
            received: 0,
            acknowledged: 0,
            unacknowledged_bytes: 0,
            partial: BytesMut::new(),
            scratch: BytesMut::new(),
            events: VecDeque::new(),
        }
    }

    /// Its name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// What was sent and is not acknowledged, with what it takes to keep it, bytes. At most twice
    /// [`Config::max_unacknowledged_bytes`] and a frame.
    pub fn unacknowledged_bytes(&self) -> usize {
        self.log.bytes()
    }

    /// Opens a stream, as a client. Its first message is the first that is [sent](Self::send).
    /// Needs no connection: it opens at the server when there is one.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(&mut self, target: Bytes) -> Result<StreamId, OpenError> {
        let peer = self.link.peer();
        if self.role == Role::Server {
            return Err(OpenError::Server);
        }
        if target.len() > MAX_TARGET_BYTES {
            return Err(OpenError::TargetTooLong(target.len()));
        }
        if self.link.is_over() {
            return Err(OpenError::Ended);
        }
        if self.going_away {
            return Err(OpenError::GoingAway);
        }
        if self.last_id >= self.config.max_opened {
            return Err(OpenError::UsedUp(self.config.max_opened));
        }
        if self.streams.len() >= peer.max_streams as usize {
            return Err(OpenError::TooManyStreams(peer.max_streams));
        }
        self.last_id += 1;
        let window = self.config.window_bytes;
        let stream = Stream::new(self.last_id, peer.window_bytes, window, Some(target));
        let slot = self.streams.insert(stream);
        self.streams.link(Lane::Control, slot);
        Ok(StreamId(self.last_id))
    }

    /// Sends a message. It waits for its turn and for credit; how much may wait is up to the
    /// caller, who asks [`Self::is_writable`] before making another.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the message, if the stream or this half of it has ended, or if the message
    /// is too long.
    pub fn send(&mut self, id: StreamId, message: Bytes) -> Result<(), SendError> {
        let fail = |kind, message| Err(SendError { kind, message });
        let Some(slot) = self.sending(id) else {
            return fail(SendErrorKind::Ended, message);
        };
        let limit = self.config.max_message_bytes;
        if message.len() > limit {
            return fail(SendErrorKind::TooLong(limit), message);
        }
        self.streams.get_mut(slot).enqueue(message);
        self.link_data(slot);
        Ok(())
    }

    /// Whether credit is left beyond what waits on the stream, and less than
    /// [`Config::window_bytes`] waits there, however large the peer says that its window is: whether
    /// to make another message. If not, [`Event::Writable`] comes when it is so, unless the stream
    /// ends before.
    pub fn is_writable(&mut self, id: StreamId) -> bool {
        let limit = self.config.window_bytes;
        let slot = self.streams.find(id.0);
        slot.is_some_and(|slot| self.streams.get_mut(slot).poll_writable(limit))
    }

    /// Ends this half of a stream, after what waits there. The stream is over when both halves have
    /// ended.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(slot) = self.sending(id) {
            self.streams.get_mut(slot).sending = Sending::Ending(End::Finish);
            self.link_data(slot);
        }
    }

    /// Ends a stream in both directions, after what waits there, with an error of at most
    /// [`MAX_ERROR_BYTES`]. No event of the stream comes any more.
    pub fn fail(&mut self, id: StreamId, error: Bytes) {
        let Some(slot) = self.streams.find(id.0) else {
            return;
        };
        let stream = self.streams.get_mut(slot);
        if matches!(stream.sending, Sending::Done) {
            return self.reset(id, error);
        }
        stream.deaf = true;
        stream.sending = Sending::Ending(End::Fail(bounded(error)));
        self.link_data(slot);
    }

    /// Ends a stream in both directions, at once, with an error of at most [`MAX_ERROR_BYTES`]. What
    /// waits there is dropped, and no event of the stream comes any more.
    pub fn reset(&mut self, id: StreamId, error: Bytes) {
        let Some(slot) = self.streams.find(id.0) else {
            return;
        };
        let stream = self.streams.get_mut(slot);
        if stream.open.is_some() {
            // The peer has not heard of it.
            self.streams.remove(slot);
            return;
        }
        stream.stop_sending();
        stream.deaf = true;
        stream.reset.get_or_insert(bounded(error));
        self.streams.unlink(Lane::Data, slot);
        self.streams.link(Lane::Control, slot);
    }

    /// Asks the server, as a client, to end a stream soon with what there is. That needs no credit,
    /// arrives after what was said before on control frames, outlives a cut connection, and is said
    /// once, however often it is asked. The stream goes on until the server ends it.
    pub fn stop(&mut self, id: StreamId) {
        if self.role == Role::Server {
            return;
        }
        let Some(slot) = self.streams.find(id.0) else {
            return;
        };
        let stream = self.streams.get_mut(slot);
        if stream.stop == Stop::No && !stream.deaf {
            stream.stop = Stop::Due;
            self.streams.link(Lane::Control, slot);
        }
    }

    /// Says that a chunk of so many bytes was taken, so that the peer may send as much again. Once
    /// for each [`Event::Chunk`], unless its stream has ended.
    pub fn consumed(&mut self, id: StreamId, chunk_bytes: usize) {
        let Some(slot) = self.streams.find(id.0) else {
            return;
        };
        let stream = self.streams.get_mut(slot);
        stream.consume(chunk_bytes, &self.config);
        if stream.owes_credit(&self.config) {
            self.streams.link(Lane::Control, slot);
        }
    }

    /// Tells the client, as a server, to open no more streams: for a target, or at all. Those that
    /// are opened nevertheless, because they crossed it, come as any others, and are to be failed.
    /// What waits to be said is not said twice.
    pub fn go_away(&mut self, target: Option<Bytes>) {
        let too_long = target
            .as_ref()
            .is_some_and(|target| target.len() > MAX_TARGET_BYTES);
        if self.role == Role::Client || self.going_away || self.link.is_over() || too_long {
            return;
        }
        if target.is_none() {
            self.going_away = true;
            self.farewells.clear();
        }
        if !self.farewells.contains(&target) {
            self.farewells.push_back(target);
        }
    }

    /// Ends the session and all its streams. The next [`Self::transmit`] tells the peer, if there is
    /// a connection; what else waited is dropped.
    pub fn close(&mut self) {
        self.forget();
        self.link.close();
    }

    /// What happened, oldest first. To be asked until there is nothing, after each other call.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The slot of a stream on which this side still sends.
    fn sending(&self, id: StreamId) -> Option<u32> {
        let slot = self.streams.find(id.0)?;
        matches!(self.streams.get(slot).sending, Sending::Open).then_some(slot)
    }

    /// Gives a stream its turn if it has something to send.
    fn link_data(&mut self, slot: u32) {
        let stream = self.streams.get(slot);
        let (chunk_bytes, window) = (
            self.config.chunk_bytes.into(),
            self.link.peer().window_bytes,
        );
        if stream.open.is_none() && stream.has_frame(chunk_bytes, window) {
            self.streams.link(Lane::Data, slot);
        }
    }

    /// Wakes a stream's producer if it waits and may go on.
    fn wake(&mut self, slot: u32) {
        let stream = self.streams.get_mut(slot);
        if stream.wakes(self.config.window_bytes) {
            let id = StreamId(stream.id);
            self.events.push_back(Event::Writable { id });
        }
    }

    /// The session is over.
    fn lose(&mut self, cause: LostCause) {
        if self.link.lose() {
            self.forget();
            self.events.push_back(Event::Lost(cause));
        }
    }

    /// Drops all streams, and what was kept of them.
    fn forget(&mut self) {
        self.streams.clear();
        self.farewells.clear();
        self.log = Log::default();
        self.partial = BytesMut::new();
    }
}

/// An error, as far as a frame takes it.
fn bounded(mut error: Bytes) -> Bytes {
    error.truncate(MAX_ERROR_BYTES);
    error
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
