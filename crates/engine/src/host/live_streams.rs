use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::output_stream::{OutputStream, OutputWriter, SharedSlot, Unwanted};
use crate::Error;

/// The streams of one engine whose choices have not ended. A clone is the same set.
///
/// Every stream is here from before its request is accepted, so that an abort finds it, and the end
/// of the engine ends it.
#[derive(Clone)]
pub struct LiveStreams {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    live: Mutex<Live>,
    has_unwanted: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Live {
    next: u64,
    streams: FxHashMap<u64, (String, u32, SharedSlot)>,
}

impl LiveStreams {
    /// No streams yet. `wake` is called, from whatever thread, when the engine should look at its
    /// writers: it must return at once.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                live: Mutex::default(),
                has_unwanted: AtomicBool::new(false),
                wake: Box::new(wake),
            }),
        }
    }

    /// The two ends of a stream for a choice of a request.
    pub fn open(&self, request: &str, choice: u32) -> (OutputWriter, OutputStream) {
        let slot = SharedSlot::default();
        let mut live = self.shared.live.lock();
        let number = live.next;
        live.next += 1;
        live.streams
            .insert(number, (request.to_owned(), choice, slot.clone()));
        drop(live);
        let writer = OutputWriter::new(number, slot.clone(), self.shared.clone());
        (writer, OutputStream::new(slot, self.shared.clone()))
    }

    /// Marks the streams of a request as unwanted, and wakes the engine if there are any.
    pub fn abort(&self, request: &str) {
        self.end(|id, _| id == request, Unwanted::Aborted);
    }

    /// Marks the streams of one choice of a request as complete, and wakes the engine if there are
    /// any.
    pub fn stop(&self, request: &str, choice: u32) {
        self.end(
            |id, index| id == request && index == choice,
            Unwanted::Stopped,
        );
    }

    fn end(&self, is_meant: impl Fn(&str, u32) -> bool, why: Unwanted) {
        let mut found = false;
        for (id, choice, slot) in self.shared.live.lock().streams.values() {
            if is_meant(id, *choice) {
                slot.mark(why);
                found = true;
            }
        }
        if found {
            self.shared.tell();
        }
    }

    /// Whether streams became unwanted since the last call.
    pub fn take_unwanted(&self) -> bool {
        self.shared.has_unwanted.swap(false, Ordering::AcqRel)
    }

    /// Ends every stream with an error.
    pub fn fail_all(&self, error: &Error) {
        let live = self.shared.live.lock();
        let slots: Vec<_> = live
            .streams
            .values()
            .map(|(_, _, slot)| slot.clone())
            .collect();
        drop(live);
        for slot in slots {
            slot.fail(error.clone());
        }
    }
}

impl Shared {
    /// Something has become unwanted.
    pub(super) fn tell(&self) {
        self.has_unwanted.store(true, Ordering::Release);
        (self.wake)();
    }

    pub(super) fn remove(&self, number: u64) {
        self.live.lock().streams.remove(&number);
    }
}

impl fmt::Debug for LiveStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveStreams")
            .field("streams", &self.shared.live.lock().streams.len())
            .finish_non_exhaustive()
    }
}
