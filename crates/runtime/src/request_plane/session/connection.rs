use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::poll_read_buf;

use super::driver::Link;
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

    fn poll_send(
        &mut self,
        session: &SharedSession,
        wakers: &mut Wakers,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        loop {
            if self.output.is_empty() {
                session.transmit(WRITE_BYTES, &mut self.output, wakers);
            }
            match self.poll_progress(context) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending | Poll::Ready(Ok(false)) => return Ok(()),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.output.is_empty() && self.is_flushed
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
