use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_mux::session::{DetachCause, Hello, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::io::poll_read_buf;

use super::serve::Serving;
use super::shared::{SharedSession, Wakers};

/// Room for what one read brings: at first, and when reads fill it.
const LEAST_READ_BYTES: usize = 4 << 10;
const MOST_READ_BYTES: usize = 64 << 10;
/// Reads in a row; then something is written.
const READS_AT_ONCE: usize = 4;
/// What is handed to one write, about.
const WRITE_BYTES: usize = 256 << 10;
/// The most parts that one vectored write takes.
const WRITE_PARTS: usize = 64;

/// A stream of bytes under a session.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What carries a session's frames while it is attached.
pub(crate) trait Link: Send {
    /// Hands what has come to the session, up to a bound; whether there may be more.
    fn poll_receive(
        &mut self,
        session: &SharedSession,
        wakers: &mut Wakers,
        context: &mut Context<'_>,
    ) -> io::Result<bool>;

    /// Sends what the session has, as far as the link takes it.
    fn poll_send(&mut self, session: &SharedSession, context: &mut Context<'_>) -> io::Result<()>;

    /// Whether all that was taken from the session is sent, so that there may be more.
    fn is_empty(&self) -> bool;
}

/// A connection whose peer has said hello.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    /// Its place among those that a listener may have.
    _permit: Option<OwnedSemaphorePermit>,
    /// Came after the peer's hello, or is being read.
    input: BytesMut,
    /// Room for the next read.
    read_bytes: usize,
    /// On its way out, the first part as far as it is not written.
    output: Vec<Bytes>,
    is_flushed: bool,
}

impl Connection {
    /// A connection on which `input` came after the peer's hello.
    pub(crate) fn new(
        io: Box<dyn Io>,
        input: BytesMut,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            io,
            _permit: permit,
            input,
            read_bytes: LEAST_READ_BYTES,
            output: Vec::new(),
            is_flushed: true,
        }
    }

    /// What it goes over.
    pub(crate) fn into_io(self) -> Box<dyn Io> {
        self.io
    }

    /// Sends `bytes` before anything else.
    pub(crate) fn say_first(&mut self, bytes: Bytes) {
        self.output.insert(0, bytes);
    }
}

/// What a driver has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driven {
    /// The connection was cut, and the session waits for another.
    Cut,
    /// The session is over, and its peer has been told if it could be.
    Over,
}

/// Takes a session's bytes to and from its connection, and, at servers, goes on with its answers.
///
/// Reading waits for nobody: what has come is handed to its streams, whose credit bounds it. What
/// can be sent is put together after everything that could make more had its turn, and goes with
/// one vectored write.
pub(crate) struct Driver {
    session: Arc<SharedSession>,
    connection: Option<Box<dyn Link>>,
    serving: Option<Serving>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires, as the session counts time; none if that has no meaning.
    armed: Option<Duration>,
    wakers: Wakers,
}

impl Driver {
    /// A driver without a connection.
    pub(crate) fn new(session: Arc<SharedSession>, serving: Option<Serving>) -> Self {
        Self {
            session,
            connection: None,
            serving,
            timer: Box::pin(sleep_until(Instant::now())),
            armed: None,
            wakers: Wakers::new(),
        }
    }

    /// Attaches the session to its peer, which said `hello`; [`Self::connect`] has to follow.
    ///
    /// # Errors
    ///
    /// The refusal, if the two do not fit together; nothing has changed then.
    pub(crate) fn attach(&mut self, hello: &Hello) -> Result<(), Refusal> {
        let attached = self.session.attach(hello, &mut self.wakers);
        self.wake();
        attached
    }

    /// Tells the session that it has no connection.
    pub(crate) fn detach(&mut self, cause: DetachCause, diagnostic: String) {
        self.session.detach(cause, diagnostic, &mut self.wakers);
        self.wake();
    }

    /// Goes on over this connection, which the session was attached for.
    pub(crate) fn connect(&mut self, connection: impl Link + 'static) {
        self.disconnect();
        self.session.metrics().connections.inc();
        self.connection = Some(Box::new(connection));
    }

    fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            self.session.metrics().connections.dec();
        }
    }

    /// Drives until there is something to tell. Cancel-safe.
    pub(crate) async fn drive(&mut self) -> Driven {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Driven> {
        loop {
            let read = self.poll_read(context);
            self.wake();
            if let Some(serving) = &mut self.serving {
                serving.poll(context);
            }
            let is_over = self.session.is_over();
            let written = match read {
                Ok(_) => self.poll_write(context),
                Err(_) => Ok(()),
            };
            if is_over {
                // Who is silent may take nothing for ever.
                let is_told = self.session.is_silent()
                    || self.connection.as_ref().is_none_or(|link| link.is_empty());
                if is_told || read.is_err() || written.is_err() {
                    self.disconnect();
                    return Poll::Ready(Driven::Over);
                }
            }
            let failed = read.as_ref().err().or(written.as_ref().err());
            if let Some(error) = failed {
                let diagnostic = error.to_string();
                self.disconnect();
                self.detach(DetachCause::Cut, diagnostic);
                return Poll::Ready(match self.session.is_over() {
                    true => Driven::Over,
                    false => Driven::Cut,
                });
            }
            let has_timed_out = self.poll_timer(context);
            if has_timed_out {
                self.session.handle_timeout(&mut self.wakers);
                self.wake();
                continue;
            }
            let can_send = self.connection.as_ref().is_some_and(|link| link.is_empty());
            let parked = self.session.park(can_send, context);
            if self.arm(parked.timeout) || !parked.is_parked || read.is_ok_and(|is_more| is_more) {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Reads what there is, up to a bound; whether there may be more.
    fn poll_read(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        match &mut self.connection {
            Some(link) => link.poll_receive(&self.session, &mut self.wakers, context),
            None => Ok(false),
        }
    }

    /// Writes what there is, as far as the connection takes it.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match &mut self.connection {
            Some(link) => link.poll_send(&self.session, context),
            None => Ok(()),
        }
    }

    /// Whether the time has come that the session asked for.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> bool {
        let has_come = self.armed.is_some() && self.timer.as_mut().poll(context).is_ready();
        if has_come {
            self.armed = None;
        }
        has_come
    }

    /// Sees to it that the timer fires in time; a time that moved away is found out then. Whether
    /// the timer has to be polled for that.
    fn arm(&mut self, timeout: Option<Duration>) -> bool {
        let Some(at) = timeout else {
            self.armed = None;
            return false;
        };
        if self.armed.is_some_and(|armed| armed <= at) {
            return false;
        }
        self.timer.as_mut().reset(self.session.instant(at));
        self.armed = Some(at);
        true
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.disconnect();
        // Nobody is left to go on with it.
        self.session.close();
    }
}

impl Link for Connection {
    fn poll_receive(
        &mut self,
        session: &SharedSession,
        wakers: &mut Wakers,
        context: &mut Context<'_>,
    ) -> io::Result<bool> {
        for _ in 0..READS_AT_ONCE {
            if self.input.is_empty() {
                self.make_room();
                let io = Pin::new(&mut self.io);
                match poll_read_buf(io, context, &mut self.input) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Poll::Ready(Ok(bytes)) => self.has_read(bytes),
                    Poll::Ready(Err(error)) => return Err(error),
                }
            }
            let bytes = self.input.split().freeze();
            session.receive(bytes, wakers).map_err(io::Error::other)?;
        }
        Ok(true)
    }

    fn poll_send(&mut self, session: &SharedSession, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.output.is_empty() {
                session.transmit(WRITE_BYTES, &mut self.output);
            }
            match self.poll_progress(context) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending | Poll::Ready(Ok(false)) => return Ok(()),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.output.is_empty()
    }
}

impl Connection {
    /// Room for a read. What a burst needed goes back after it.
    fn make_room(&mut self) {
        if self.input.capacity() > 2 * self.read_bytes {
            self.input = BytesMut::new();
        }
        self.input.reserve(self.read_bytes);
    }

    fn has_read(&mut self, bytes: usize) {
        if bytes >= self.read_bytes {
            self.read_bytes = (2 * self.read_bytes).min(MOST_READ_BYTES);
        } else if bytes < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 2).max(LEAST_READ_BYTES);
        }
    }

    /// Writes or flushes once; false if there was nothing to do.
    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.output.is_empty() {
            if !self.is_flushed {
                ready!(Pin::new(&mut self.io).poll_flush(context))?;
                self.is_flushed = true;
            }
            return Poll::Ready(Ok(false));
        }
        let mut slices = [IoSlice::new(&[]); WRITE_PARTS];
        for (slice, part) in slices.iter_mut().zip(&self.output) {
            *slice = IoSlice::new(part);
        }
        let count = self.output.len().min(WRITE_PARTS);
        let io = Pin::new(&mut self.io);
        let written = ready!(io.poll_write_vectored(context, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.is_flushed = false;
        self.advance(written);
        Poll::Ready(Ok(true))
    }

    fn advance(&mut self, mut written: usize) {
        let is_whole = |part: &&Bytes| {
            let is_whole = part.len() <= written;
            if is_whole {
                written -= part.len();
            }
            is_whole
        };
        let whole = self.output.iter().take_while(is_whole).count();
        self.output.drain(..whole);
        if let Some(part) = self.output.first_mut() {
            let _ = part.split_to(written);
        }
    }
}
