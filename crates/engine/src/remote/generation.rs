use std::pin::Pin;
use std::task::{Context, Poll, ready};

use forebay_protocols::Error;
use forebay_protocols::worker::{FinishReason, GenerateOutput};
use forebay_runtime::ResponseStream;
use futures::{Stream, StreamExt as _};

use super::frames::{broken, decode};
use super::stops::Stoppable;

/// The outputs of a generation that a worker has accepted.
pub(super) struct Outputs {
    frames: ResponseStream,
    has_ended: bool,
    /// It can be asked to stop for as long as it is here.
    _stoppable: Stoppable,
}

impl Outputs {
    /// `frames` are those after the first.
    pub(super) fn new(frames: ResponseStream, stoppable: Stoppable) -> Self {
        Self {
            frames,
            has_ended: false,
            _stoppable: stoppable,
        }
    }
}

impl Stream for Outputs {
    type Item = Result<GenerateOutput, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.frames.poll_next_unpin(context));
        let output = match frame {
            Some(frame) => frame.and_then(decode::<GenerateOutput>),
            None => Err(broken("a generation ended without a reason")),
        };
        self.has_ended = match &output {
            Ok(output) => output.finish_reason() != FinishReason::Unspecified,
            Err(_) => true,
        };
        Poll::Ready(Some(output))
    }
}
