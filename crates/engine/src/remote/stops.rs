use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{self, AbortHandle, BoxFuture};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// The generations of one engine that can be asked to stop. A clone is the same set.
#[derive(Clone, Default)]
pub(super) struct Stops(Arc<Mutex<Begun>>);

#[derive(Default)]
struct Begun {
    next: u64,
    /// Each with its request, its choice and what asks it.
    generations: FxHashMap<u64, (String, u32, AbortHandle)>,
}

/// A generation that can be asked to stop, as long as this is there.
pub(super) struct Stoppable {
    stops: Stops,
    number: u64,
}

impl Stops {
    /// One more, and what completes when it is asked.
    pub(super) fn begin(&self, request: &str, choice: u32) -> (Stoppable, BoxFuture<'static, ()>) {
        let (asked, ask) = future::abortable(future::pending::<()>());
        let generation = (request.to_owned(), choice, ask);
        let mut begun = self.0.lock();
        let number = begun.next;
        begun.next += 1;
        begun.generations.insert(number, generation);
        drop(begun);
        let stops = self.clone();
        (Stoppable { stops, number }, asked.map(drop).boxed())
    }

    /// Asks those of a choice to stop, if there are any.
    pub(super) fn stop(&self, request: &str, choice: u32) {
        let begun = self.0.lock();
        let generations = begun.generations.values();
        let meant = generations.filter(|(id, index, _)| id == request && *index == choice);
        let asks: Vec<_> = meant.map(|(_, _, ask)| ask.clone()).collect();
        drop(begun);
        for ask in asks {
            ask.abort();
        }
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        self.stops.0.lock().generations.remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_asked_once_and_nobody_else() {
        let stops = Stops::default();
        let (one, mut stop_one) = stops.begin("a", 0);
        let (two, stop_two) = stops.begin("a", 1);
        stops.stop("b", 0);
        assert!((&mut stop_one).now_or_never().is_none());
        stops.stop("a", 0);
        stops.stop("a", 0);
        assert!(stop_one.now_or_never().is_some());
        assert!(stop_two.now_or_never().is_none());
        drop((one, two));
        assert!(stops.0.lock().generations.is_empty());
    }
}
