use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How the generations of an [`EngineHandler`](super::EngineHandler) get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Generations whose client waits for the engine: it has taken all that was there, and asked
    /// for more. Those whose clients do not ask are not the engine's to answer for.
    pub waiting: usize,
    /// Outputs that clients have taken so far.
    pub outputs: u64,
}

/// The generations that run, each with a mark of its own, so that an output costs one plain store
/// to memory that nobody else writes.
#[derive(Clone, Default)]
pub(super) struct Generations(Arc<Mutex<Live>>);

#[derive(Default)]
struct Live {
    next: u64,
    marks: HashMap<u64, Arc<AtomicU64>>,
    /// Of the generations that have ended.
    outputs: u64,
}

/// What a generation shows of itself.
pub(super) struct Mark {
    number: u64,
    outputs: u64,
    /// Twice the outputs, and 1 while the client waits.
    shown: Arc<AtomicU64>,
    generations: Generations,
}

impl Generations {
    /// One more, for whose client nothing was asked yet.
    pub(super) fn begin(&self) -> Mark {
        let shown = Arc::new(AtomicU64::new(0));
        let mut live = self.0.lock();
        let number = live.next;
        live.next += 1;
        live.marks.insert(number, shown.clone());
        Mark {
            number,
            outputs: 0,
            shown,
            generations: self.clone(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let live = self.0.lock();
        let ended = Progress {
            waiting: 0,
            outputs: live.outputs,
        };
        live.marks.values().fold(ended, |sum, mark| {
            let shown = mark.load(Ordering::Relaxed);
            Progress {
                waiting: sum.waiting + usize::from(shown & 1 == 1),
                outputs: sum.outputs + (shown >> 1),
            }
        })
    }
}

impl Mark {
    /// The client asked, and nothing was there.
    pub(super) fn waits(&self) {
        self.shown.store(self.outputs << 1 | 1, Ordering::Relaxed);
    }

    /// The client got something.
    pub(super) fn waits_no_more(&self) {
        self.shown.store(self.outputs << 1, Ordering::Relaxed);
    }

    /// What the client gets now is an output.
    pub(super) fn gives(&mut self) {
        self.outputs += 1;
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut live = self.generations.0.lock();
        live.marks.remove(&self.number);
        live.outputs += self.outputs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_that_of_all_generations() {
        let generations = Generations::default();
        let mut one = generations.begin();
        let two = generations.begin();
        let seen = |waiting, outputs| {
            assert_eq!(generations.progress(), Progress { waiting, outputs });
        };
        seen(0, 0);
        one.waits();
        one.waits();
        two.waits();
        seen(2, 0);
        for _ in 0..2 {
            one.gives();
            one.waits_no_more();
        }
        seen(1, 2);
        two.waits_no_more();
        one.waits();
        seen(1, 2);
        drop(one);
        seen(0, 2);
        drop(two);
        seen(0, 2);
    }
}
