use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_mux::session::{Assembler, StreamId};
use forebay_protocols::Error;
use futures::Stream;

use super::error;
use super::shared::{End, Received, SharedSession};

/// What the peer says on a stream, as whole messages. It takes memory for one that is being read:
/// its part of what the session has for that.
pub(super) struct Messages {
    session: Arc<SharedSession>,
    id: StreamId,
    assembler: Assembler,
    /// There is a part of a message.
    has_part: bool,
    limit_bytes: usize,
}

/// Why there is no further message.
#[derive(Debug)]
pub(super) enum NoMessage {
    /// The peer's half has ended.
    End(End),
    /// The peer sent one that is too large; the stream is of no more use.
    TooLarge(Error),
}

impl Messages {
    pub(super) fn new(session: Arc<SharedSession>, id: StreamId, limit_bytes: usize) -> Self {
        Self {
            session,
            id,
            assembler: Assembler::default(),
            has_part: false,
            limit_bytes,
        }
    }

    pub(super) fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, NoMessage>> {
        loop {
            match ready!(self.session.poll_received(self.id, context)) {
                Received::Chunk(bytes, is_last) => {
                    self.has_part = !is_last;
                    match self.assembler.push(bytes, is_last, self.limit_bytes) {
                        Ok(Some(message)) => return Poll::Ready(Ok(message)),
                        Ok(None) => {}
                        Err(_) => {
                            let error = error::frame_too_large(self.limit_bytes);
                            return Poll::Ready(Err(NoMessage::TooLarge(error)));
                        }
                    }
                }
                Received::End(end) => return Poll::Ready(Err(NoMessage::End(end))),
            }
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        if self.has_part {
            self.session.forget_part(self.id);
        }
    }
}

/// What a client still says after its first frame, for a handler.
impl Stream for Messages {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match ready!(self.poll_message(context)) {
            Ok(message) => Poll::Ready(Some(message)),
            Err(NoMessage::End(_)) => Poll::Ready(None),
            Err(NoMessage::TooLarge(error)) => {
                self.session.break_off(self.id, error);
                Poll::Ready(None)
            }
        }
    }
}
