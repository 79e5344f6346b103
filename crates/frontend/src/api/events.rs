use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::{Chunks, Envelope};
use crate::generation::Answering;

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
}

impl Events {
    pub(crate) fn new(answering: Answering, envelope: Envelope, include_usage: bool) -> Self {
        let answer = Answer {
            answering,
            chunks: Chunks::new(envelope, include_usage),
            include_usage,
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
        Poll::Ready(Some(Ok(Frame::data(events.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_none()
    }
}

impl Answer {
    /// The next events, all that are ready, and whether others follow.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        let goes_on = match ready!(self.answering.poll_parts(cx)) {
            Ok(Some(parts)) => {
                out.reserve(parts.len() * self.chunks.usual_bytes());
                for part in &parts {
                    self.chunks.part(&mut out, part, self.answering.tokenizer());
                }
                true
            }
            Ok(None) => {
                if self.include_usage {
                    self.chunks.usage(&mut out, &self.answering.usage());
                }
                Chunks::done(&mut out);
                false
            }
            Err(error) => {
                Chunks::error(&mut out, &error);
                false
            }
        };
        Poll::Ready((out, goes_on))
    }
}
