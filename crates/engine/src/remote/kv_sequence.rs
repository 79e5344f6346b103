//! Which of a worker's changes follow on what is known.

use std::collections::HashMap;

use forebay_tokens::DpRank;

/// What a change is to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Next,
    /// What is known includes it.
    Known,
    /// Something before it is missing, so what is known is of no use any more.
    Gap,
}

/// How far one follower knows the KV caches of one worker. It begins with snapshots.
///
/// Two numbers order the changes: the epoch of the publisher, and the sequence that the engine
/// gives to the batches of a rank.
#[derive(Debug, Default)]
pub(super) struct KvSequence {
    /// Of the first change after the snapshots.
    epoch: Option<u64>,
    /// The last sequence that is known of each rank.
    known: HashMap<DpRank, u64>,
}

impl KvSequence {
    /// The cache of `rank` is known with every batch up to `sequence`.
    pub(super) fn snapshot(&mut self, rank: DpRank, sequence: u64) {
        self.known.insert(rank, sequence);
    }

    /// Judges a batch, and takes it as known if it is the next.
    pub(super) fn change(&mut self, epoch: u64, rank: DpRank, sequence: u64) -> Verdict {
        let current = *self.epoch.get_or_insert(epoch);
        if epoch != current {
            return if epoch < current {
                Verdict::Known
            } else {
                Verdict::Gap
            };
        }
        let Some(known) = self.known.get_mut(&rank) else {
            return Verdict::Gap;
        };
        if sequence <= *known {
            return Verdict::Known;
        }
        if sequence - *known > 1 {
            return Verdict::Gap;
        }
        *known = sequence;
        Verdict::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DpRank = DpRank(0);
    const B: DpRank = DpRank(1);

    fn after(snapshots: &[(DpRank, u64)]) -> KvSequence {
        let mut sequence = KvSequence::default();
        for (rank, number) in snapshots {
            sequence.snapshot(*rank, *number);
        }
        sequence
    }

    #[test]
    fn changes_follow_on_the_snapshot_of_their_rank() {
        let mut sequence = after(&[(A, 5), (B, 0)]);
        let verdicts = [
            (A, 4, Verdict::Known),
            (A, 5, Verdict::Known),
            (A, 6, Verdict::Next),
            (B, 0, Verdict::Known),
            (B, 1, Verdict::Next),
            (A, 6, Verdict::Known),
            (A, 7, Verdict::Next),
            (B, 3, Verdict::Gap),
            (A, 8, Verdict::Next),
        ];
        for (rank, number, verdict) in verdicts {
            assert_eq!(sequence.change(1, rank, number), verdict, "{rank} {number}");
        }
    }

    #[test]
    fn a_rank_without_snapshot_is_a_gap() {
        assert_eq!(after(&[(A, 5)]).change(1, B, 0), Verdict::Gap);
    }

    #[test]
    fn an_older_epoch_is_over_and_a_newer_one_a_gap() {
        let mut sequence = after(&[(A, 5)]);
        assert_eq!(sequence.change(2, A, 6), Verdict::Next);
        assert_eq!(sequence.change(1, A, 7), Verdict::Known);
        assert_eq!(sequence.change(2, A, 7), Verdict::Next);
        assert_eq!(sequence.change(3, A, 8), Verdict::Gap);
    }
}
