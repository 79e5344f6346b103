use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};

use super::{Chunks, Envelope};
use crate::generation::{Answering, Part};

/// A streamed answer as the body of its response: each frame has all events that are ready
/// together.
pub(crate) struct Events {
    /// `None` once the answer is whole or has failed. Boxed: the body is moved a few times.
    answer: Option<Box<Answer>>,
}

struct Answer {
    answering: Answering,
    chunks: Chunks,
    include_usage: bool,
    /// Kept for their memory: the parts that come next...
    parts: Vec<Part>,
    /// ... and their events, which are cut off as frames.
    out: BytesMut,
}

impl Events {
    pub(crate) fn new(answering: Answering, envelope: Envelope, include_usage: bool) -> Self {
        let answer = Answer {
            answering,
            chunks: Chunks::new(envelope, include_usage),
            include_usage,
            parts: Vec::new(),
            out: BytesMut::new(),
        };
        Self {
            answer: Some(Box::new(answer)),
        }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(None);
        };
        let (events, goes_on) = ready!(answer.poll_events(cx));
        if !goes_on {
            self.answer = None;
        }
        Poll::Ready(Some(Ok(Frame::data(events))))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_none()
    }
}

impl Answer {
    /// The next events, all that are ready, and whether others follow.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<(Bytes, bool)> {
        let out = &mut self.out;
        let goes_on = match ready!(self.answering.poll_parts(cx, &mut self.parts)) {
            Ok(true) => {
                out.reserve(self.parts.len() * self.chunks.usual_bytes());
                for part in self.parts.drain(..) {
                    self.chunks.part(out, &part, self.answering.tokenizer());
                }
                true
            }
            Ok(false) => {
                if self.include_usage {
                    self.chunks.usage(out, &self.answering.usage());
                }
                Chunks::done(out);
                false
            }
            Err(error) => {
                Chunks::error(out, &error);
                false
            }
        };
        Poll::Ready((out.split().freeze(), goes_on))
    }
}
