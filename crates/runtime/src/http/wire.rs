use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::exchange::Exchange;

/// A socket under HTTP that gives up on a client which takes nothing, and keeps HTTP from
/// answering by itself.
pub(super) struct Wire {
    stream: TcpStream,
    /// What was read already and comes before what the socket has.
    ahead: Bytes,
    exchange: Arc<Exchange>,
    write_timeout: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether the client has ended its side.
    ended: bool,
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        ahead: Bytes,
        exchange: Arc<Exchange>,
        write_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            ahead,
            exchange,
            write_timeout,
            stalled: None,
            ended: false,
        }
    }

    /// The socket, and whether the client has ended its side.
    pub(super) fn into_stream(self) -> (TcpStream, bool) {
        (self.stream, self.ended)
    }

    /// Fails if the client has taken nothing for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Ready(wrote) => {
                self.stalled = None;
                Poll::Ready(wrote)
            }
            Poll::Pending => self.poll_stalled(cx),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.ahead.has_remaining() {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(length));
        } else {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        }
        match buf.filled().len() > before {
            true => self.exchange.read(),
            false => self.ended = buf.remaining() > 0,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.exchange.may_write(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self
            .exchange
            .may_write(pieces.first().map_or(&[], |piece| &**piece))
        {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket keeps nothing back.
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
