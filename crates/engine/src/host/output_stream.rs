use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;

use super::live_streams::Shared;
use crate::{Error, FinishReason, GenerateOutput};

/// What is between the two ends of a stream.
#[derive(Clone, Default)]
pub(super) struct SharedSlot(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    /// What the consumer has not taken yet.
    pending: Option<GenerateOutput>,
    error: Option<Error>,
    has_ended: bool,
    unwanted: Option<Unwanted>,
    consumer: Option<Waker>,
}

/// Why a choice is to end early; of several reasons, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unwanted {
    /// The choice was stopped: the consumer has what it needs, and waits for the last output.
    Stopped,
    /// The request was aborted, and the consumer waits for the last output.
    Aborted,
    /// The consumer dropped its end: nobody reads what comes.
    Dropped,
}

/// The engine's end of a stream.
pub struct OutputWriter {
    number: u64,
    slot: SharedSlot,
    shared: Arc<Shared>,
}

/// The consumer's end: a [`GenerateStream`](crate::GenerateStream) once it is boxed.
///
/// It holds one output: what was not taken yet is extended by what comes next, so a slow consumer
/// gets more tokens at once, and never holds more than the tokens of its choice.
pub struct OutputStream {
    slot: SharedSlot,
    shared: Arc<Shared>,
}

impl SharedSlot {
    pub(super) fn mark(&self, why: Unwanted) {
        let mut slot = self.0.lock();
        slot.unwanted = slot.unwanted.max(Some(why));
    }

    pub(super) fn fail(&self, error: Error) {
        self.update(|slot| {
            if !slot.has_ended {
                slot.has_ended = true;
                slot.error = Some(error);
            }
        });
    }

    /// Changes the slot and wakes its consumer, outside of the lock.
    fn update(&self, change: impl FnOnce(&mut Slot)) {
        let mut slot = self.0.lock();
        change(&mut slot);
        let consumer = slot.consumer.take();
        drop(slot);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }
}

impl OutputWriter {
    pub(super) fn new(number: u64, slot: SharedSlot, shared: Arc<Shared>) -> Self {
        Self {
            number,
            slot,
            shared,
        }
    }

    /// Hands the next output over; never waits. One with a finish reason is the last.
    pub fn send(&self, output: GenerateOutput) {
        self.slot.update(|slot| {
            slot.has_ended |= output.finish_reason() != FinishReason::Unspecified;
            match &mut slot.pending {
                Some(pending) => append(pending, output),
                None => slot.pending = Some(output),
            }
        });
    }

    /// Ends the stream with an error, after what is pending; nothing, if it has ended.
    pub fn fail(&self, error: Error) {
        self.slot.fail(error);
    }

    /// Whether the choice should end, and why.
    pub fn unwanted(&self) -> Option<Unwanted> {
        self.slot.0.lock().unwanted
    }
}

impl Drop for OutputWriter {
    fn drop(&mut self) {
        self.shared.remove(self.number);
    }
}

/// Extends an output by the one after it.
fn append(pending: &mut GenerateOutput, next: GenerateOutput) {
    pending.token_ids.extend(next.token_ids);
    pending.logprobs.extend(next.logprobs);
    pending.finish_reason = next.finish_reason;
    pending.matched_stop_token = next.matched_stop_token;
}

impl OutputStream {
    pub(super) fn new(slot: SharedSlot, shared: Arc<Shared>) -> Self {
        Self { slot, shared }
    }
}

impl Stream for OutputStream {
    type Item = Result<GenerateOutput, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut slot = self.slot.0.lock();
        if let Some(output) = slot.pending.take() {
            Poll::Ready(Some(Ok(output)))
        } else if let Some(error) = slot.error.take() {
            Poll::Ready(Some(Err(error)))
        } else if slot.has_ended {
            Poll::Ready(None)
        } else {
            slot.consumer = Some(context.waker().clone());
            Poll::Pending
        }
    }
}

impl Drop for OutputStream {
    fn drop(&mut self) {
        let mut slot = self.slot.0.lock();
        slot.unwanted = Some(Unwanted::Dropped);
        let must_tell = !slot.has_ended;
        drop(slot);
        if must_tell {
            self.shared.tell();
        }
    }
}

impl fmt::Debug for OutputWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputWriter")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::host::LiveStreams;

    fn streams() -> (LiveStreams, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = wakes.clone();
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        (LiveStreams::new(count), wakes)
    }

    fn output(tokens: &[u32], finish: FinishReason) -> GenerateOutput {
        GenerateOutput {
            token_ids: tokens.to_vec(),
            finish_reason: finish.into(),
            ..GenerateOutput::default()
        }
    }

    fn next(stream: &mut OutputStream) -> Option<Option<Result<GenerateOutput, Error>>> {
        stream.next().now_or_never()
    }

    #[test]
    fn what_was_not_taken_is_one_output() {
        let (live, wakes) = streams();
        let (writer, mut stream) = live.open("a", 0);
        assert!(next(&mut stream).is_none());
        writer.send(output(&[1], FinishReason::Unspecified));
        writer.send(output(&[2, 3], FinishReason::Unspecified));
        let both = output(&[1, 2, 3], FinishReason::Unspecified);
        assert_eq!(next(&mut stream), Some(Some(Ok(both))));
        assert!(next(&mut stream).is_none());
        writer.send(output(&[4], FinishReason::Stop));
        let last = output(&[4], FinishReason::Stop);
        writer.fail(Error::internal("it has ended, so this is nothing"));
        drop(writer);
        assert_eq!(next(&mut stream), Some(Some(Ok(last))));
        assert_eq!(next(&mut stream), Some(None));
        drop(stream);
        assert_eq!(wakes.load(Ordering::Relaxed), 0, "it had ended");
    }

    #[test]
    fn an_abort_marks_the_streams_of_its_request() {
        let (live, wakes) = streams();
        let (one, _one) = live.open("a", 0);
        let (two, _two) = live.open("a", 1);
        let (other, _other) = live.open("b", 0);
        live.abort("c");
        assert!(!live.take_unwanted());
        live.abort("a");
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert!(live.take_unwanted() && !live.take_unwanted());
        assert_eq!(one.unwanted(), Some(Unwanted::Aborted));
        assert_eq!(two.unwanted(), Some(Unwanted::Aborted));
        assert_eq!(other.unwanted(), None);
    }

    #[test]
    fn a_stop_marks_one_choice_and_an_abort_is_more() {
        let (live, wakes) = streams();
        let (one, _one) = live.open("a", 0);
        let (two, _two) = live.open("a", 1);
        live.stop("b", 1);
        live.stop("a", 2);
        assert!(!live.take_unwanted());
        live.stop("a", 1);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert_eq!(one.unwanted(), None);
        assert_eq!(two.unwanted(), Some(Unwanted::Stopped));
        live.abort("a");
        assert_eq!(two.unwanted(), Some(Unwanted::Aborted));
    }

    #[test]
    fn a_dropped_stream_is_unwanted() {
        let (live, wakes) = streams();
        let (writer, stream) = live.open("a", 0);
        drop(stream);
        assert_eq!(writer.unwanted(), Some(Unwanted::Dropped));
        assert!(live.take_unwanted());
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_end_of_an_engine_ends_its_streams_after_what_is_pending() {
        let (live, _) = streams();
        let (writer, mut stream) = live.open("a", 0);
        let (gone, mut ended) = live.open("b", 0);
        gone.send(output(&[9], FinishReason::Length));
        drop(gone);
        writer.send(output(&[1], FinishReason::Unspecified));
        live.fail_all(&Error::internal("gone"));
        assert!(matches!(next(&mut stream), Some(Some(Ok(_)))));
        assert!(matches!(next(&mut stream), Some(Some(Err(_)))));
        assert_eq!(next(&mut stream), Some(None));
        assert!(matches!(next(&mut ended), Some(Some(Ok(_)))));
        assert_eq!(next(&mut ended), Some(None));
    }
}
