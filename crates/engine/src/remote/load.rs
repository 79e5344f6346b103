use std::sync::Arc;
use std::time::Duration;

use forebay_protocols::worker::Load;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A load that is older is asked for anew when someone looks at it.
const FRESH: Duration = Duration::from_millis(10);

/// The last load that a worker reported.
#[derive(Clone, Debug)]
pub(super) struct KnownLoad {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    load: Load,
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
                asked: None,
                is_asking: false,
            })),
        }
    }

    /// The last load, and the question to ask if it is no longer fresh.
    pub(super) fn look(&self, now: Instant) -> (Load, Option<Question>) {
        let mut state = self.state.lock();
        let is_fresh = state.asked.is_some_and(|asked| now < asked + FRESH);
        if is_fresh || state.is_asking {
            return (state.load, None);
        }
        state.asked = Some(now);
        state.is_asking = true;
        (state.load, Some(Question(self.clone())))
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
}
