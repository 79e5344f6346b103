//! Whether an engine does anything.

use forebay_engine::Load;
use forebay_engine::remote::{EngineHandler, Progress};

/// How many looks at an engine its stall takes: the worker looks this often in the time that an
/// engine may do nothing.
pub(crate) const LOOKS: u32 = 8;

/// How many of them it may do nothing before it is asked something.
pub(crate) const LOOKS_UNASKED: u32 = LOOKS / 2;

/// What shows of an engine's work at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    progress: Progress,
    load: Load,
    is_paused: bool,
}

/// For how long an engine has done nothing, though there is something to do.
#[derive(Debug)]
pub(crate) struct Stillness {
    last: Sight,
    looks: u32,
}

impl Sight {
    pub(crate) fn of(handler: &EngineHandler, load: Load) -> Self {
        Self {
            progress: handler.progress(),
            load,
            is_paused: handler.is_paused(),
        }
    }

    /// Whether clients wait for an engine that has done nothing since `before`.
    ///
    /// An output is work that was done. Without one, a prefill is: its tokens become fewer, and it
    /// takes blocks. Requests that only arrive do neither, so a stalled engine shows though they
    /// keep coming. Those that leave can look like work, and that is the safer error.
    fn is_still_since(&self, before: &Self) -> bool {
        let (now, then) = (&self.load, &before.load);
        let has_worked = self.progress.outputs != before.progress.outputs
            || now.prefill_tokens_pending < then.prefill_tokens_pending
            || now.kv_blocks_active > then.kv_blocks_active;
        self.progress.waiting > 0 && !self.is_paused && !has_worked
    }
}

impl Stillness {
    pub(crate) fn since(first: Sight) -> Self {
        Self {
            last: first,
            looks: 0,
        }
    }

    /// For how many looks, this one included, the engine has done nothing.
    pub(crate) fn look(&mut self, now: Sight) -> u32 {
        self.looks = match now.is_still_since(&self.last) {
            true => self.looks + 1,
            false => 0,
        };
        self.last = now;
        self.looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client waits, and something is in the queue and something runs.
    fn sight() -> Sight {
        Sight {
            progress: Progress {
                waiting: 1,
                outputs: 5,
            },
            load: Load {
                running_requests: 2,
                waiting_requests: 3,
                kv_blocks_active: 20,
                kv_blocks_cached: 10,
                prefill_tokens_pending: 100,
                ..Load::default()
            },
            is_paused: false,
        }
    }

    /// Whether a change between two looks lets an engine count as still.
    fn is_still(change: impl FnOnce(&mut Sight)) -> bool {
        let mut changed = sight();
        change(&mut changed);
        changed.is_still_since(&sight())
    }

    #[test]
    fn what_only_work_brings_about_is_work() {
        assert!(is_still(|_| {}));
        assert!(!is_still(|now| now.progress.outputs += 1));
        assert!(!is_still(|now| now.load.prefill_tokens_pending -= 1));
        assert!(!is_still(|now| now.load.kv_blocks_active += 1));
    }

    #[test]
    fn what_arrives_is_no_work() {
        assert!(is_still(|now| {
            now.progress.waiting += 4;
            now.load.waiting_requests += 4;
            now.load.running_requests += 4;
            now.load.prefill_tokens_pending += 400;
        }));
    }

    #[test]
    fn who_is_not_waited_for_or_paused_is_not_still() {
        assert!(!is_still(|now| now.progress.waiting = 0));
        assert!(!is_still(|now| now.is_paused = true));
    }

    #[test]
    fn looks_are_counted_from_the_last_work() {
        let mut stillness = Stillness::since(sight());
        let mut now = sight();
        assert_eq!([1, 2].map(|_| stillness.look(now)), [1, 2]);
        now.progress.outputs += 1;
        assert_eq!([1, 2, 3].map(|_| stillness.look(now)), [0, 1, 2]);
    }
}
