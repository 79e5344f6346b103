//! What the driver of a session's connection does with it.

use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "nats")]
use forebay_mux::session::Packet;
use forebay_mux::session::{
    DetachCause, Event, Hello, LostCause, ProtocolError, Refusal, StreamId,
};

use super::{End, SharedSession, State, Wakers, error, is_internal, register, wake};

/// What a driver needs to know before it waits.
pub(crate) struct Parked {
    /// It may wait; else there is something to do.
    pub(crate) is_parked: bool,
    /// When the session wants to be asked again.
    pub(crate) timeout: Option<Duration>,
}

impl SharedSession {
    /// What to say first on a connection.
    pub(crate) fn hello(&self) -> Hello {
        self.state.lock().session.hello()
    }

    /// There is a connection, and the peer has said hello.
    pub(crate) fn attach(&self, hello: &Hello, wakers: &mut Wakers) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let attached = state.session.attach(self.now(), hello);
        self.dispatch(&mut state, wakers);
        attached
    }

    /// There is no connection.
    pub(crate) fn detach(&self, cause: DetachCause, diagnostic: String, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        state.diagnostic = diagnostic;
        state.session.detach(self.now(), cause);
        self.dispatch(&mut state, wakers);
    }

    /// Bytes have come.
    #[cfg(feature = "tcp")]
    pub(crate) fn receive(&self, bytes: Bytes, wakers: &mut Wakers) -> Result<(), ProtocolError> {
        self.metrics.received_bytes.inc_by(bytes.len() as u64);
        let mut state = self.state.lock();
        let received = state.session.receive(self.now(), bytes);
        self.dispatch(&mut state, wakers);
        received
    }

    /// Takes what there is to be sent, about `limit` bytes of it.
    #[cfg(feature = "tcp")]
    pub(crate) fn transmit(&self, limit: usize, out: &mut Vec<Bytes>, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        let bytes = state.session.transmit(self.now(), limit, out);
        // What has gone may have made room for its producer.
        self.dispatch(&mut state, wakers);
        self.metrics.sent_bytes.inc_by(bytes as u64);
    }

    /// A packet has come.
    #[cfg(feature = "nats")]
    pub(crate) fn receive_packet(
        &self,
        packet: Packet,
        wakers: &mut Wakers,
    ) -> Result<(), ProtocolError> {
        self.metrics
            .received_bytes
            .inc_by(packet.bytes.len() as u64);
        let mut state = self.state.lock();
        let received = state.session.receive_packet(self.now(), packet);
        self.dispatch(&mut state, wakers);
        received
    }

    /// Takes the next packet that is to be sent, of about `limit` bytes.
    #[cfg(feature = "nats")]
    pub(crate) fn transmit_packet(&self, limit: usize, wakers: &mut Wakers) -> Option<Packet> {
        let mut state = self.state.lock();
        let packet = state.session.transmit_packet(self.now(), limit)?;
        self.dispatch(&mut state, wakers);
        self.metrics.sent_bytes.inc_by(packet.bytes.len() as u64);
        Some(packet)
    }

    /// A time the session asked for may have come.
    pub(crate) fn handle_timeout(&self, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        state.session.handle_timeout(self.now());
        self.dispatch(&mut state, wakers);
    }

    /// Takes the streams that clients opened.
    pub(crate) fn take_opened(&self) -> Vec<(StreamId, Bytes)> {
        std::mem::take(&mut self.state.lock().opened)
    }

    /// Wakes the driver when there is something to send; at once if there is, and it `can_send`.
    pub(crate) fn park(&self, can_send: bool, context: &mut Context<'_>) -> Parked {
        let mut state = self.state.lock();
        let has_work = !state.opened.is_empty() || (can_send && state.session.has_output());
        if !has_work {
            register(&mut state.driver, context);
        }
        Parked {
            is_parked: !has_work,
            timeout: state.session.next_timeout(),
        }
    }

    /// Whether the session has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Whether it has ended because nothing came from its peer.
    pub(crate) fn is_silent(&self) -> bool {
        self.state.lock().end == Some(LostCause::Silent)
    }

    /// Whether it carries nobody's request.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state.lock().requests == 0
    }

    /// Tells the client, as a server, that a target takes nothing new any more, or none does.
    pub(crate) fn go_away(&self, target: Option<&str>) {
        let mut state = self.state.lock();
        let target = target.map(|target| Bytes::copy_from_slice(target.as_bytes()));
        state.session.go_away(target);
        wake(state.driver.take(), state);
    }

    /// Ends the session if it had no stream for `idle`; else says how long it may still be so.
    pub(crate) fn close_if_idle(&self, idle: Duration) -> Option<Duration> {
        let mut state = self.state.lock();
        let unused = match state.streams.is_empty() {
            true => self.now().saturating_sub(state.last_used),
            false => Duration::ZERO,
        };
        match idle.checked_sub(unused).filter(|left| !left.is_zero()) {
            Some(left) => Some(left),
            None => {
                self.close_locked(&mut state, &mut Wakers::new());
                wake(state.driver.take(), state);
                None
            }
        }
    }

    /// Ends the session and every stream of it.
    pub(crate) fn close(&self) {
        let mut wakers = Wakers::new();
        let mut state = self.state.lock();
        self.close_locked(&mut state, &mut wakers);
        wakers.extend(state.driver.take());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn close_locked(&self, state: &mut State, wakers: &mut Wakers) {
        state.session.close();
        self.dispatch(state, wakers);
        self.end(state, LostCause::Closed, wakers);
    }

    /// Takes the session's events to the streams they are of.
    fn dispatch(&self, state: &mut State, wakers: &mut Wakers) {
        while let Some(event) = state.session.next_event() {
            match event {
                Event::Chunk { id, bytes, last } => {
                    let stream = state.streams.get_mut(&id);
                    // A watch that has ended tells nothing more, whatever still comes.
                    if let Some(stream) = stream.filter(|stream| stream.end.is_none()) {
                        stream.chunks.push_back((bytes, last));
                        wakers.extend(stream.reader.take());
                        self.metrics.unread_chunks.inc();
                    }
                }
                Event::Writable { id } => {
                    let stream = state.streams.get_mut(&id);
                    wakers.extend(stream.and_then(|stream| stream.writer.take()));
                }
                Event::Opened { id, target } => {
                    let is_internal = is_internal(&target);
                    if self.has_room(state, is_internal) {
                        self.insert(state, id, is_internal, None);
                        state.opened.push((id, target));
                    } else {
                        let error = error::encode(error::too_many_streams());
                        state.session.fail(id, error);
                    }
                }
                Event::Finished { id } => state.end_stream(id, End::Finished, wakers),
                Event::Stopped { id } => {
                    if let Some(stream) = state.streams.get_mut(&id) {
                        stream.is_stopped = true;
                        wakers.extend(stream.stopper.take());
                    }
                }
                Event::Reset { id, error } => state.end_stream(id, End::Reset(error), wakers),
                Event::Refused { id } => state.end_stream(id, End::Refused, wakers),
                Event::Attached { resumed } => {
                    state.was_attached = true;
                    if resumed {
                        self.metrics.reattachments.inc();
                    }
                }
                Event::GoAway { target } => state.go_away(target.as_ref(), wakers),
                Event::Lost(cause) => self.end(state, cause, wakers),
                // A connection is the driver's own.
                _ => {}
            }
        }
    }

    fn end(&self, state: &mut State, cause: LostCause, wakers: &mut Wakers) {
        if state.end.is_some() {
            return;
        }
        state.end = Some(cause);
        self.metrics.lost(cause);
        let ids: Vec<_> = state.streams.keys().copied().collect();
        for id in ids {
            state.end_stream(id, End::Lost, wakers);
        }
    }
}
