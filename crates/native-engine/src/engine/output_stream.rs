//! One choice's way from the engine's thread to its consumer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use forebay_engine::{Error, FinishReason, GenerateOutput};
use futures::Stream;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use super::step_loop::{Command, wake};

/// The streams whose choices have not ended, by number.
///
/// Every stream is here from before its request is accepted, so that an abort finds it and the end
/// of the engine's thread ends it.
#[derive(Clone, Debug, Default)]
pub(super) struct LiveStreams {
    shared: Arc<Mutex<Live>>,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    streams: FxHashMap<u64, (String, Arc<Mutex<Slot>>)>,
}

/// What is between the two ends.
#[derive(Debug, Default)]
struct Slot {
    /// What the consumer has not taken yet.
    pending: Option<GenerateOutput>,
    error: Option<Error>,
    has_ended: bool,
    /// The consumer is gone.
    is_dropped: bool,
    is_aborted: bool,
    consumer: Option<Waker>,
}

/// Why a choice is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    Dropped,
    Aborted,
}

/// The end of the engine's thread.
#[derive(Debug)]
pub(super) struct OutputWriter {
    number: u64,
    slot: Arc<Mutex<Slot>>,
    live: LiveStreams,
}

/// The consumer's end.
pub(super) struct OutputStream {
    slot: Arc<Mutex<Slot>>,
    commands: mpsc::Sender<Command>,
}

impl LiveStreams {
    /// A stream of a request; `commands` lead to the thread that is told when it is dropped.
    pub(super) fn open(
        &self,
        request: &str,
        commands: &mpsc::Sender<Command>,
    ) -> (OutputWriter, OutputStream) {
        let slot = Arc::new(Mutex::new(Slot::default()));
        let mut live = self.shared.lock();
        let number = live.next;
        live.next += 1;
        live.streams
            .insert(number, (request.to_owned(), slot.clone()));
        drop(live);
        let writer = OutputWriter {
            number,
            slot: slot.clone(),
            live: self.clone(),
        };
        let commands = commands.clone();
        (writer, OutputStream { slot, commands })
    }

    /// Marks the streams of a request as unwanted.
    pub(super) fn abort(&self, request: &str) {
        for (id, slot) in self.shared.lock().streams.values() {
            if id == request {
                slot.lock().is_aborted = true;
            }
        }
    }

    /// Ends every stream with an error.
    pub(super) fn fail_all(&self, error: &Error) {
        let live = self.shared.lock();
        let slots: Vec<_> = live
            .streams
            .values()
            .map(|(_, slot)| slot.clone())
            .collect();
        drop(live);
        for slot in slots {
            update(&slot, |slot| slot.fail(error.clone()));
        }
    }
}

impl OutputWriter {
    /// Hands the next output over; never waits.
    pub(super) fn send(&self, output: GenerateOutput) {
        update(&self.slot, |slot| {
            slot.has_ended |= output.finish_reason() != FinishReason::Unspecified;
            match &mut slot.pending {
                Some(pending) => append(pending, output),
                None => slot.pending = Some(output),
            }
        });
    }

    /// Ends the stream with an error, after what is pending.
    pub(super) fn fail(&self, error: Error) {
        update(&self.slot, |slot| slot.fail(error));
    }

    /// Whether the choice should end, and why.
    pub(super) fn unwanted(&self) -> Option<Unwanted> {
        let slot = self.slot.lock();
        match (slot.is_dropped, slot.is_aborted) {
            (true, _) => Some(Unwanted::Dropped),
            (false, true) => Some(Unwanted::Aborted),
            (false, false) => None,
        }
    }
}

impl Drop for OutputWriter {
    fn drop(&mut self) {
        self.live.shared.lock().streams.remove(&self.number);
    }
}

impl Slot {
    fn fail(&mut self, error: Error) {
        if !self.has_ended {
            self.has_ended = true;
            self.error = Some(error);
        }
    }
}

/// Changes a slot and wakes its consumer, outside of the lock.
fn update(slot: &Mutex<Slot>, change: impl FnOnce(&mut Slot)) {
    let mut slot = slot.lock();
    change(&mut slot);
    let consumer = slot.consumer.take();
    drop(slot);
    if let Some(consumer) = consumer {
        consumer.wake();
    }
}

/// Extends an output by the one after it.
fn append(pending: &mut GenerateOutput, next: GenerateOutput) {
    pending.token_ids.extend(next.token_ids);
    pending.logprobs.extend(next.logprobs);
    pending.finish_reason = next.finish_reason;
    pending.matched_stop_token = next.matched_stop_token;
}

impl Stream for OutputStream {
    type Item = Result<GenerateOutput, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut slot = self.slot.lock();
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
        let mut slot = self.slot.lock();
        slot.is_dropped = true;
        let must_tell = !slot.has_ended;
        drop(slot);
        if must_tell {
            wake(&self.commands);
        }
    }
}
