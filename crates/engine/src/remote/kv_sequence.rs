//! Which of a worker's changes follow on what is known.

use std::cmp::Ordering;
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

/// How far one follower knows the KV caches of one worker. It begins with a snapshot of each rank.
///
/// Two numbers order the changes: the epoch of the publisher, and within it the sequence that the
/// engine gives to the batches of a rank.
#[derive(Debug, Default)]
pub(super) struct KvSequence {
    /// Of the snapshots.
    epoch: Option<u64>,
    /// The last sequence that is known of each rank.
    known: HashMap<DpRank, u64>,
}

impl KvSequence {
    /// The cache of `rank` is known with every batch up to `sequence`. Snapshots of two epochs are
    /// a gap.
    pub(super) fn snapshot(&mut self, epoch: u64, rank: DpRank, sequence: u64) -> Verdict {
        self.known.insert(rank, sequence);
        match *self.epoch.get_or_insert(epoch) == epoch {
            true => Verdict::Next,
            false => Verdict::Gap,
        }
    }

    /// Judges a batch, and takes it as known if it is the next.
    pub(super) fn change(&mut self, epoch: u64, rank: DpRank, sequence: u64) -> Verdict {
        let verdict = self.judge(epoch, rank, sequence);
        if verdict == Verdict::Next {
            self.known.insert(rank, sequence);
        }
        verdict
    }

    /// Judges the word that batches up to `sequence` were published: there is no next one in it.
    pub(super) fn mark(&mut self, epoch: u64, rank: DpRank, sequence: u64) -> Verdict {
        match self.judge(epoch, rank, sequence) {
            Verdict::Next => Verdict::Gap,
            verdict => verdict,
        }
    }

    fn judge(&self, epoch: u64, rank: DpRank, sequence: u64) -> Verdict {
        match Some(epoch).cmp(&self.epoch) {
            Ordering::Less => return Verdict::Known,
            Ordering::Greater => return Verdict::Gap,
            Ordering::Equal => {}
        }
        match self.known.get(&rank) {
            Some(known) if sequence <= *known => Verdict::Known,
            Some(known) if sequence - known == 1 => Verdict::Next,
            _ => Verdict::Gap,
        }
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
            assert_eq!(sequence.snapshot(1, *rank, *number), Verdict::Next);
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
    fn a_mark_beyond_what_is_known_is_a_gap() {
        let mut sequence = after(&[(A, 5)]);
        assert_eq!(sequence.mark(1, A, 5), Verdict::Known);
        assert_eq!(sequence.mark(1, A, 6), Verdict::Gap);
        assert_eq!(sequence.change(1, A, 6), Verdict::Next);
        assert_eq!(sequence.mark(1, A, 6), Verdict::Known);
        assert_eq!(sequence.mark(2, A, 6), Verdict::Gap);
    }

    #[test]
    fn a_rank_without_snapshot_is_a_gap() {
        assert_eq!(after(&[(A, 5)]).change(1, B, 0), Verdict::Gap);
    }

    #[test]
    fn an_older_epoch_is_over_and_a_newer_one_a_gap() {
        let mut sequence = after(&[(A, 5)]);
        assert_eq!(sequence.change(0, A, 6), Verdict::Known);
        assert_eq!(sequence.change(1, A, 6), Verdict::Next);
        for number in [0, 7, 8] {
            assert_eq!(sequence.change(2, A, number), Verdict::Gap);
            assert_eq!(sequence.mark(2, A, number), Verdict::Gap);
        }
        assert_eq!(sequence.snapshot(2, B, 0), Verdict::Gap);
    }
}
