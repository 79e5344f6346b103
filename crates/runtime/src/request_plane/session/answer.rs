use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_mux::session::StreamId;
use forebay_protocols::Error;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};

use super::error;
use super::messages::{Messages, NoMessage};
use super::shared::{End, SharedSession};
use crate::request_plane::{ResponseStream, StreamRequest, worker_stopped};

/// Frames of a request that are sent in one go; then others have their turn.
const SENT_AT_ONCE: usize = 32;

/// Opens a stream with its first frame, when the answer is first polled.
pub(crate) type Open =
    Box<dyn FnOnce(Bytes) -> Result<(Arc<SharedSession>, StreamId), Error> + Send>;

/// The client's end of a stream. Who polls the answer sends the request, too.
pub(crate) struct Answer {
    address: String,
    limit_bytes: usize,
    phase: Phase,
    /// What is still to be sent; none after the half close.
    rest: Option<BoxStream<'static, Bytes>>,
    /// Whether the server is to end soon; none once it has been told.
    stop: Option<BoxFuture<'static, ()>>,
}

enum Phase {
    Unopened(Open, Bytes),
    Open(Arc<SharedSession>, StreamId, Messages),
    Ended,
}

impl Answer {
    /// The answer to a request; frames of it may be `limit_bytes` long.
    pub(crate) fn stream(
        address: &str,
        request: StreamRequest,
        limit_bytes: usize,
        open: Open,
    ) -> ResponseStream {
        Self {
            address: address.to_owned(),
            limit_bytes,
            phase: Phase::Unopened(open, request.first),
            rest: Some(request.rest),
            stop: Some(request.stop),
        }
        .boxed()
    }

    /// Opens the stream if that is still to be done.
    fn begin(&mut self) -> Result<(), Error> {
        if !matches!(self.phase, Phase::Unopened(..)) {
            return Ok(());
        }
        if let Phase::Unopened(open, first) = std::mem::replace(&mut self.phase, Phase::Ended) {
            let (session, id) = open(first)?;
            let messages = Messages::new(session.clone(), id, self.limit_bytes);
            self.phase = Phase::Open(session, id, messages);
        }
        Ok(())
    }

    /// Sends what there is to be sent and may be.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        let Phase::Open(session, id, _) = &self.phase else {
            return Ok(());
        };
        for _ in 0..SENT_AT_ONCE {
            let Some(rest) = &mut self.rest else {
                return Ok(());
            };
            if session.poll_writable(*id, context) != Poll::Ready(true) {
                return Ok(());
            }
            match rest.poll_next_unpin(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(frame)) => session.send(*id, frame)?,
                Poll::Ready(None) => {
                    session.finish(*id);
                    self.rest = None;
                }
            }
        }
        if self.rest.is_some() {
            context.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Tells the server if it is to end soon.
    fn poll_stop(&mut self, context: &mut Context<'_>) {
        let Phase::Open(session, id, _) = &self.phase else {
            return;
        };
        let stop = self.stop.as_mut();
        if stop.is_some_and(|stop| stop.poll_unpin(context).is_ready()) {
            session.stop(*id);
            self.stop = None;
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.begin()?;
        self.poll_rest(context)?;
        self.poll_stop(context);
        let Phase::Open(session, _, messages) = &mut self.phase else {
            return Poll::Ready(None);
        };
        let item = match ready!(messages.poll_message(context)) {
            Ok(frame) => Some(Ok(frame)),
            Err(NoMessage::TooLarge(error)) => Some(Err(error)),
            Err(NoMessage::End(End::Finished)) => None,
            Err(NoMessage::End(End::Reset(error))) if error.is_empty() => None,
            Err(NoMessage::End(End::Reset(error))) => Some(Err(error::decode(&error))),
            Err(NoMessage::End(End::Refused)) => Some(Err(error::too_many_streams())),
            Err(NoMessage::End(End::GoneAway)) => Some(Err(worker_stopped(&self.address))),
            Err(NoMessage::End(End::Lost)) => Some(Err(session.lost(&self.address))),
        };
        Poll::Ready(item)
    }

    fn end(&mut self) {
        (self.rest, self.stop) = (None, None);
        if let Phase::Open(session, id, _) = std::mem::replace(&mut self.phase, Phase::Ended) {
            session.leave(id);
        }
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.poll_frame(context));
        if !matches!(item, Some(Ok(_))) {
            self.end();
        }
        Poll::Ready(item)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.end();
    }
}
