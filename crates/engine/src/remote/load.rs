use std::sync::Arc;
use std::time::Duration;

use forebay_protocols::worker::Load;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A load that was asked for and is older is asked for anew when someone looks at it.
const FRESH: Duration = Duration::from_millis(10);
/// A worker that has published its load is not asked for this long: more than twice the longest time
/// between two reports.
const QUIET: Duration = Duration::from_secs(5);

/// The last load that a worker reported.
#[derive(Clone, Debug)]
pub(super) struct KnownLoad {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    load: Load,
    /// When the worker published it.
    told: Option<Instant>,
    asked: Option<Instant>,
    is_asking: bool,
}

/// A question to the worker that is on its way; there is at most one.
#[derive(Debug)]
pub(super) struct Question(KnownLoad);

impl KnownLoad {
    /// Before the worker said anything.
    pub(super) fn new(load: Load) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                load,
                told: None,
                asked: None,
                is_asking: false,
            })),
        }
    }

    /// The last load, and the question to ask if it is no longer fresh.
    pub(super) fn look(&self, now: Instant) -> (Load, Option<Question>) {
        let mut state = self.state.lock();
        let is_fresh = state.asked.is_some_and(|asked| now < asked + FRESH)
            || state.told.is_some_and(|told| now < told + QUIET);
        if is_fresh || state.is_asking {
            return (state.load, None);
        }
        state.asked = Some(now);
        state.is_asking = true;
        (state.load, Some(Question(self.clone())))
    }

    /// The worker has published its load.
    pub(super) fn tell(&self, now: Instant, load: Load) {
        let mut state = self.state.lock();
        state.load = load;
        state.told = Some(now);
    }
}

impl Question {
    pub(super) fn answer(self, load: Load) {
        self.0.state.lock().load = load;
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.0.state.lock().is_asking = false;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn running(running_requests: u32) -> Load {
        Load {
            running_requests,
            ..Default::default()
        }
    }

    #[test]
    fn a_stale_load_is_asked_for_once() {
        let known = KnownLoad::new(running(0));
        let start = Instant::now();
        let (load, question) = known.look(start);
        assert_eq!(load, running(0));
        let question = question.unwrap();
        let late = start + 2 * FRESH;
        assert!(known.look(late).1.is_none(), "one question at a time");
        question.answer(running(3));
        assert!(known.look(start + FRESH / 2).1.is_none(), "still fresh");
        let (load, question) = known.look(late);
        assert_eq!(load, running(3));
        // Without an answer the last load stays, and is asked for again.
        drop(question.unwrap());
        let (load, question) = known.look(late + FRESH);
        assert_eq!(load, running(3));
        assert!(question.is_some());
    }
    #[test]
    fn a_worker_that_publishes_is_not_asked() {
        let known = KnownLoad::new(running(0));
        let start = Instant::now();
        known.tell(start, running(1));
        let (load, question) = known.look(start + QUIET / 2);
        assert_eq!(load, running(1));
        assert!(question.is_none());
        let (load, question) = known.look(start + QUIET);
        assert_eq!(load, running(1));
        question.unwrap().answer(running(2));
        assert_eq!(known.look(start + QUIET).0, running(2));
    }
}
