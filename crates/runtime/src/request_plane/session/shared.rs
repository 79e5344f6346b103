mod assembly;
mod driving;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{LostCause, OpenError, Refusal, SendErrorKind, Session, StreamId};
use forebay_protocols::{Error, ErrorClass};
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use self::assembly::Assembly;
use super::metrics::Metrics;
use super::{INTERNAL_STREAMS, PEER_TARGET, error, is_internal};
use crate::request_plane::{worker_lost, worker_stopped, worker_unreachable};

/// One end of a session, shared by the driver of its connection and by its streams.
///
/// The lock is held for the steps of a state machine, never for IO or foreign code; wakers are
/// woken after it.
pub(crate) struct SharedSession {
    state: Mutex<State>,
    start: Instant,
    metrics: Metrics,
    /// Streams that may be open for requests.
    max_requests: u32,
}

struct State {
    session: Session,
    streams: FxHashMap<StreamId, StreamState>,
    assembly: Assembly,
    /// Streams that are no plane's own business, but for those that were cut.
    requests: u32,
    /// The others, but for the same.
    internals: u32,
    /// When there was last a stream.
    last_used: Duration,
    /// What clients opened, to be served.
    opened: Vec<(StreamId, Bytes)>,
    /// The driver, where it waits.
    driver: Option<Waker>,
    was_attached: bool,
    /// The server said that it stops.
    has_gone_away: bool,
    end: Option<LostCause>,
    /// What went wrong last with the connection.
    diagnostic: String,
}

/// What has come for a stream, and who waits for it.
struct StreamState {
    is_internal: bool,
    /// It is this client's watch of how things stand with that target.
    watches: Option<Bytes>,
    chunks: VecDeque<(Bytes, bool)>,
    /// Of the peer's half.
    end: Option<End>,
    /// This half has ended, too, without its own doing.
    is_cut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The client asked for its end soon.
    is_stopped: bool,
    stopper: Option<Waker>,
    /// What its reader has of a message that has not come whole, bytes.
    part_bytes: usize,
}

/// How the peer's half of a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Properly.
    Finished,
    /// With both halves, for this reason; none is a proper end.
    Reset(Bytes),
    /// It never began: the server has too many.
    Refused,
    /// What it watches takes nothing new any more.
    GoneAway,
    /// With the session.
    Lost,
}

/// What the peer said on a stream.
#[derive(Debug)]
pub(crate) enum Received {
    /// A part of a message, and whether it is the last.
    Chunk(Bytes, bool),
    /// No more.
    End(End),
}

/// What one session may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    /// Requests that run at once.
    pub(crate) requests: u32,
    /// What there is of messages that have not come whole, of all streams together; one of them may
    /// go on beyond it.
    pub(crate) assembly_bytes: usize,
}

/// Who is to be woken when the lock is released.
pub(crate) type Wakers = Vec<Waker>;

impl SharedSession {
    /// A session with room for [`INTERNAL_STREAMS`] beside those of `limits`.
    pub(crate) fn new(session: Session, metrics: Metrics, limits: SessionLimits) -> Arc<Self> {
        metrics.sessions.inc();
        Arc::new(Self {
            state: Mutex::new(State {
                session,
                streams: FxHashMap::default(),
                assembly: Assembly::new(limits.assembly_bytes),
                requests: 0,
                internals: 0,
                last_used: Duration::ZERO,
                opened: Vec::new(),
                driver: None,
                was_attached: false,
                has_gone_away: false,
                end: None,
                diagnostic: String::new(),
            }),
            start: Instant::now(),
            metrics,
            max_requests: limits.requests,
        })
    }

    /// The time as the session counts it.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// When `at` is on the clock.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.start + at
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// What streams do.
impl SharedSession {
    /// Opens a stream and sends its first frame.
    pub(crate) fn open(&self, target: &str, first: Bytes) -> Result<StreamId, OpenFailure> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Err(OpenFailure::Ended);
        }
        let is_internal = is_internal(target.as_bytes());
        if !self.has_room(&mut state, is_internal) {
            return Err(OpenFailure::Error(error::too_many_streams()));
        }
        let opened = state
            .session
            .open(Bytes::copy_from_slice(target.as_bytes()));
        let id = opened.map_err(|error| match error {
            OpenError::Ended | OpenError::UsedUp(_) => OpenFailure::Ended,
            OpenError::GoingAway => OpenFailure::Error(worker_stopped(target)),
            OpenError::TooManyStreams(_) => OpenFailure::Error(error::too_many_streams()),
            other => OpenFailure::Error(error::broken(&other.to_string())),
        })?;
        let first_bytes = first.len();
        let watches = (target == PEER_TARGET).then(|| first.clone());
        if state.session.send(id, first).is_err() {
            state.session.reset(id, Bytes::new());
            return Err(OpenFailure::Error(error::frame_too_large(first_bytes)));
        }
        self.insert(&mut state, id, is_internal, watches);
        wake(state.driver.take(), state);
        Ok(id)
    }

    /// The next that the peer said. The credit of a chunk goes back with this; a chunk of a message
    /// that has not come whole waits for its part of the memory that such messages may take.
    pub(crate) fn poll_received(&self, id: StreamId, context: &mut Context<'_>) -> Poll<Received> {
        let mut state = self.state.lock();
        let State {
            streams, assembly, ..
        } = &mut *state;
        let Some(stream) = streams.get_mut(&id) else {
            return Poll::Ready(Received::End(End::Lost));
        };
        if let Some((bytes, false)) = stream.chunks.front() {
            // What has come of a stream that has ended is a window at most.
            if !assembly.take(id, bytes.len(), stream.end.is_some()) {
                register(&mut stream.reader, context);
                return Poll::Pending;
            }
            stream.part_bytes += bytes.len();
            self.metrics.part_bytes.inc_by(gauged(bytes.len()));
        }
        if let Some((bytes, is_last)) = stream.chunks.pop_front() {
            self.metrics.unread_chunks.dec();
            let part_bytes = match is_last {
                true => std::mem::take(&mut stream.part_bytes),
                false => 0,
            };
            let mut wakers = Wakers::new();
            if part_bytes > 0 {
                self.release_part(&mut state, id, part_bytes, &mut wakers);
            }
            state.session.consumed(id, bytes.len());
            let driver = match state.session.has_output() {
                true => state.driver.take(),
                false => None,
            };
            wake(wakers.into_iter().chain(driver), state);
            return Poll::Ready(Received::Chunk(bytes, is_last));
        }
        if let Some(end) = &stream.end {
            return Poll::Ready(Received::End(end.clone()));
        }
        register(&mut stream.reader, context);
        Poll::Pending
    }

    /// Waits for credit to send; false if the stream has ended both ways. Whoever asked is also
    /// woken when it ends.
    pub(crate) fn poll_writable(&self, id: StreamId, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock();
        let State {
            session, streams, ..
        } = &mut *state;
        let Some(stream) = streams.get_mut(&id) else {
            return Poll::Ready(false);
        };
        if stream.is_cut {
            return Poll::Ready(false);
        }
        register(&mut stream.writer, context);
        match session.is_writable(id) {
            true => Poll::Ready(true),
            false => Poll::Pending,
        }
    }

    /// Sends a message. One for a stream that has ended is dropped.
    ///
    /// # Errors
    ///
    /// If it is too large.
    pub(crate) fn send(&self, id: StreamId, message: Bytes) -> Result<(), Error> {
        let bytes = message.len();
        let mut state = self.state.lock();
        match state.session.send(id, message) {
            Ok(()) => {
                if !state.session.is_writable(id) {
                    self.metrics.credit_stalls.inc();
                }
                wake(state.driver.take(), state);
                Ok(())
            }
            Err(refused) => match refused.kind {
                SendErrorKind::TooLong(_) => Err(error::frame_too_large(bytes)),
                _ => Ok(()),
            },
        }
    }

    /// Asks the server to end a stream soon.
    pub(crate) fn stop(&self, id: StreamId) {
        let mut state = self.state.lock();
        state.session.stop(id);
        wake(state.driver.take(), state);
    }

    /// Waits until the client asks for a stream's end soon; for ever if that does not happen while
    /// the stream is there.
    pub(crate) fn poll_stopped(&self, id: StreamId, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        let Some(stream) = state.streams.get_mut(&id) else {
            return Poll::Pending;
        };
        if stream.is_stopped {
            return Poll::Ready(());
        }
        register(&mut stream.stopper, context);
        Poll::Pending
    }

    /// Says that this half of the stream is over.
    pub(crate) fn finish(&self, id: StreamId) {
        let mut state = self.state.lock();
        state.session.finish(id);
        wake(state.driver.take(), state);
    }

    /// Ends what a server says on a stream, after what it said, and lets go of it.
    pub(crate) fn end_answer(&self, id: StreamId, outcome: Result<(), Error>) {
        self.end_server_half(self.state.lock(), Wakers::new(), id, outcome);
    }

    /// Ends a stream as a server, in the midst of what its client says; whoever answers it is woken.
    pub(crate) fn break_off(&self, id: StreamId, error: Error) {
        let (mut state, mut wakers) = (self.state.lock(), Wakers::new());
        if let Some(stream) = state.streams.get_mut(&id) {
            wakers.extend(stream.writer.take());
        }
        self.end_server_half(state, wakers, id, Err(error));
    }

    /// Lets go of a stream: it is reset if it has not ended.
    pub(crate) fn leave(&self, id: StreamId) {
        let (mut state, mut wakers) = (self.state.lock(), Wakers::new());
        if self.remove(&mut state, id, &mut wakers).is_some() {
            // Of no effect where both halves have ended.
            state.session.reset(id, Bytes::new());
            wake(wakers.into_iter().chain(state.driver.take()), state);
        }
    }

    /// Why streams of a lost session end.
    pub(crate) fn lost(&self, address: &str) -> Error {
        let state = self.state.lock();
        let error = match state.end {
            Some(LostCause::Refused(Refusal::TooManyConnections)) => {
                let message = "the worker has too many connections";
                Error::new(
                    ErrorClass::CapacityExhausted,
                    "too_many_connections",
                    message,
                )
            }
            Some(LostCause::Refused(Refusal::Stopping)) => worker_stopped(address),
            Some(LostCause::Closed) if state.has_gone_away => worker_stopped(address),
            _ if state.was_attached => worker_lost(address),
            _ => worker_unreachable(address),
        };
        let cause = state.end.map(|cause| format!("{cause:?}"));
        let cause = cause.unwrap_or_default();
        let diagnostic = [address, cause.as_str(), state.diagnostic.as_str()];
        let told = diagnostic.into_iter().filter(|part| !part.is_empty());
        error.with_diagnostic(told.collect::<Vec<_>>().join(": "))
    }

    /// Lets go of a stream, whose end the client is told; `wakers` are woken, too.
    fn end_server_half(
        &self,
        mut state: MutexGuard<'_, State>,
        mut wakers: Wakers,
        id: StreamId,
        outcome: Result<(), Error>,
    ) {
        let Some(stream) = self.remove(&mut state, id, &mut wakers) else {
            return;
        };
        match outcome {
            Err(error) => state.session.fail(id, error::encode(error)),
            Ok(()) if stream.end == Some(End::Finished) => state.session.finish(id),
            // Nobody reads what the client still has to say.
            Ok(()) => state.session.fail(id, Bytes::new()),
        }
        wake(wakers.into_iter().chain(state.driver.take()), state);
    }

    /// Whether there may be one more stream of this kind.
    fn has_room(&self, state: &mut State, is_internal: bool) -> bool {
        let limit = match is_internal {
            true => INTERNAL_STREAMS,
            false => self.max_requests,
        };
        *state.open(is_internal) < limit
    }

    fn insert(&self, state: &mut State, id: StreamId, is_internal: bool, watches: Option<Bytes>) {
        let stream = StreamState {
            is_internal,
            watches,
            chunks: VecDeque::new(),
            end: None,
            is_cut: false,
            reader: None,
            writer: None,
            is_stopped: false,
            stopper: None,
            part_bytes: 0,
        };
        *state.open(is_internal) += 1;
        state.streams.insert(id, stream);
        self.metrics.streams.inc();
    }

    fn remove(&self, state: &mut State, id: StreamId, wakers: &mut Wakers) -> Option<StreamState> {
        let stream = state.streams.remove(&id)?;
        self.release_part(state, id, stream.part_bytes, wakers);
        if !stream.is_cut {
            *state.open(stream.is_internal) -= 1;
        }
        if state.streams.is_empty() {
            state.last_used = self.now();
        }
        self.metrics.streams.dec();
        self.metrics.unread_chunks.dec_by(stream.unread());
        Some(stream)
    }
}

impl Drop for SharedSession {
    fn drop(&mut self) {
        self.metrics.sessions.dec();
        let state = self.state.get_mut();
        for stream in state.streams.values() {
            self.metrics.streams.dec();
            self.metrics.unread_chunks.dec_by(stream.unread());
            self.metrics.part_bytes.dec_by(gauged(stream.part_bytes));
        }
    }
}

impl State {
    /// The server said so, of one target or of all.
    fn go_away(&mut self, target: Option<&Bytes>, wakers: &mut Wakers) {
        self.has_gone_away |= target.is_none();
        let watches = self.streams.iter().filter(|(_, stream)| {
            let watched = stream.watches.as_ref();
            watched.is_some_and(|watched| target.is_none_or(|target| target == watched))
        });
        for id in watches.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end_stream(id, End::GoneAway, wakers);
        }
    }

    fn end_stream(&mut self, id: StreamId, end: End, wakers: &mut Wakers) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let is_cut = end != End::Finished && !stream.is_cut;
        stream.is_cut |= is_cut;
        stream.end.get_or_insert(end);
        wakers.extend(stream.reader.take());
        wakers.extend(stream.writer.take());
        if is_cut {
            let is_internal = stream.is_internal;
            *self.open(is_internal) -= 1;
        }
    }

    /// How many streams of a kind are open.
    fn open(&mut self, is_internal: bool) -> &mut u32 {
        match is_internal {
            true => &mut self.internals,
            false => &mut self.requests,
        }
    }
}

impl StreamState {
    fn unread(&self) -> i64 {
        gauged(self.chunks.len())
    }
}

/// A count as a gauge takes it.
fn gauged(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Why a stream could not be opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The session has ended, or opens nothing any more; another one may do.
    Ended,
    /// The request's error.
    Error(Error),
}

/// Wakes whom there is to wake after the lock is released.
fn wake(wakers: impl IntoIterator<Item = Waker>, state: MutexGuard<'_, State>) {
    drop(state);
    wakers.into_iter().for_each(Waker::wake);
}

fn register(waiting: &mut Option<Waker>, context: &Context<'_>) {
    let is_known = waiting
        .as_ref()
        .is_some_and(|waker| waker.will_wake(context.waker()));
    if !is_known {
        *waiting = Some(context.waker().clone());
    }
}
