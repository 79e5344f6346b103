//! What a subscriber misses.

use std::collections::HashMap;

use forebay_tokens::WorkerId;

use crate::event_plane::Stamp;

/// Publishers of a topic that are remembered; usually there is one.
const MAX_PUBLISHERS: usize = 1_024;

/// Finds gaps in the numbers of a topic's publishers.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// The epoch and the next sequence.
    next: HashMap<WorkerId, (u64, u64)>,
}

impl Gaps {
    /// How many events are missing right before this one. Before the first of a publisher or an
    /// epoch it is those that were never sent: the subscription may be younger than the others.
    /// None, if the event is to be dropped: it is of an older epoch than one that came.
    pub(super) fn before(&mut self, stamp: Stamp, unsent: u32) -> Option<u64> {
        let next = (stamp.epoch, stamp.sequence.saturating_add(1));
        if self.next.len() == MAX_PUBLISHERS && !self.next.contains_key(&stamp.publisher) {
            self.next.clear();
        }
        let known = self.next.entry(stamp.publisher).or_insert((0, 0));
        if known.0 > stamp.epoch {
            return None;
        }
        let (epoch, expected) = std::mem::replace(known, next);
        Some(match epoch == stamp.epoch {
            true => stamp.sequence.saturating_sub(expected),
            false => u64::from(unsent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(publisher: u64, epoch: u64, sequence: u64) -> Stamp {
        Stamp {
            publisher: WorkerId(publisher),
            epoch,
            sequence,
        }
    }

    #[test]
    fn gaps_are_counted_for_each_publisher() {
        let mut gaps = Gaps::default();
        for (stamp, unsent, missing, what) in [
            (stamp(1, 1, 5), 0, Some(0), "the subscription is late"),
            (stamp(1, 1, 6), 0, Some(0), "the next"),
            (stamp(2, 9, 3), 2, Some(2), "two were never sent"),
            (stamp(1, 1, 9), 1, Some(2), "two are missing"),
            (stamp(1, 2, 0), 0, Some(0), "a new epoch"),
            (stamp(1, 1, 70), 0, None, "an old epoch"),
            (stamp(1, 2, 1), 0, Some(0), "what it said changes nothing"),
            (stamp(2, 9, 4), 0, Some(0), "another publisher"),
            (
                stamp(2, 9, u64::MAX),
                0,
                Some(u64::MAX - 5),
                "the last number",
            ),
            (stamp(2, 9, u64::MAX), 0, Some(0), "which comes again"),
        ] {
            assert_eq!(gaps.before(stamp, unsent), missing, "{what}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut gaps = Gaps::default();
        for publisher in 0..3 * MAX_PUBLISHERS as u64 {
            gaps.before(stamp(publisher, 1, 0), 0);
            assert!(gaps.next.len() <= MAX_PUBLISHERS);
        }
    }
}
