//! The memory of messages that have come in part.

use std::mem;

use forebay_mux::session::StreamId;
use rustc_hash::FxHashSet;

use super::{SharedSession, State, Wakers, gauged, wake};

/// What the readers of one session have of messages that have not come whole, within a bound.
///
/// A stream for whose next part there is no room waits, and its credit with it, so that its peer
/// waits, too. One of them goes on beyond the bound until its message is whole: so there is always a
/// message that comes to its end.
#[derive(Debug)]
pub(super) struct Assembly {
    limit_bytes: usize,
    held_bytes: usize,
    /// Who goes on beyond the bound.
    beyond: Option<StreamId>,
    waiting: FxHashSet<StreamId>,
}

impl Assembly {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            held_bytes: 0,
            beyond: None,
            waiting: FxHashSet::default(),
        }
    }

    /// Takes room for a stream; false if it has to wait. Who `must` does not wait.
    pub(super) fn take(&mut self, id: StreamId, bytes: usize, must: bool) -> bool {
        let fits = must || self.held_bytes + bytes <= self.limit_bytes;
        if !fits && *self.beyond.get_or_insert(id) != id {
            self.waiting.insert(id);
            return false;
        }
        self.held_bytes += bytes;
        true
    }

    /// A stream has so much no more; returns who waited, and is to ask again.
    pub(super) fn release(&mut self, id: StreamId, bytes: usize) -> FxHashSet<StreamId> {
        self.waiting.remove(&id);
        let was_beyond = self.beyond == Some(id);
        if bytes == 0 && !was_beyond {
            return FxHashSet::default();
        }
        self.held_bytes -= bytes;
        self.beyond.take_if(|_| was_beyond);
        mem::take(&mut self.waiting)
    }
}

impl SharedSession {
    /// Whoever read a stream's messages does so no more, in the midst of one.
    pub(crate) fn forget_part(&self, id: StreamId) {
        let (mut state, mut wakers) = (self.state.lock(), Wakers::new());
        let stream = state.streams.get_mut(&id);
        let bytes = stream.map_or(0, |stream| mem::take(&mut stream.part_bytes));
        self.release_part(&mut state, id, bytes, &mut wakers);
        wake(wakers, state);
    }

    /// A stream has so much of a message no more.
    pub(super) fn release_part(
        &self,
        state: &mut State,
        id: StreamId,
        bytes: usize,
        wakers: &mut Wakers,
    ) {
        self.metrics.part_bytes.dec_by(gauged(bytes));
        for waiting in state.assembly.release(id, bytes) {
            let stream = state.streams.get_mut(&waiting);
            wakers.extend(stream.and_then(|stream| stream.reader.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_on_beyond_the_bound_and_the_others_wait_for_room() {
        let [one, two, three] = [1, 2, 3].map(StreamId);
        let mut assembly = Assembly::new(100);
        assert!(assembly.take(one, 60, false) && assembly.take(two, 40, false));
        assert!(assembly.take(two, 50, false), "one may");
        assert!(!assembly.take(one, 1, false) && !assembly.take(three, 1, false));
        assert!(assembly.take(three, 1, true));
        assert!(
            assembly.release(three, 0).is_empty(),
            "it has nothing to give"
        );
        assert!(!assembly.take(three, 1, false));
        // The one beyond it comes to its end, and another one may.
        let woken = assembly.release(two, 90);
        assert_eq!(woken, [one, three].into_iter().collect());
        assert!(assembly.take(one, 60, false) && !assembly.take(three, 1, false));
        assert_eq!(assembly.release(one, 120), [three].into_iter().collect());
        assert!(assembly.take(three, 99, false));
        assert!(assembly.release(three, 100).is_empty());
        assert_eq!(assembly.held_bytes, 0);
    }
}
