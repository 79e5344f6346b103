use std::collections::VecDeque;

use super::booking::BookingBatch;

/// How many batches are kept.
const MOST_BATCHES: usize = 256;
/// How much they may have, as [`BookingBatch::size`] counts it.
const MOST_SIZE: usize = 1 << 20;

/// The newest batches of an owner, kept while a snapshot is on its way. The oldest are dropped
/// where they are too many, which takes another snapshot.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    batches: VecDeque<BookingBatch>,
    size: usize,
}

impl Waiting {
    pub(super) fn push(&mut self, batch: BookingBatch) {
        self.size += batch.size();
        self.batches.push_back(batch);
        while self.batches.len() > MOST_BATCHES || self.size > MOST_SIZE {
            let dropped = self.batches.pop_front();
            self.size -= dropped.map_or(0, |dropped| dropped.size());
        }
    }

    /// The oldest first.
    pub(super) fn into_batches(self) -> impl Iterator<Item = BookingBatch> {
        self.batches.into_iter()
    }
}

impl FromIterator<BookingBatch> for Waiting {
    fn from_iter<I: IntoIterator<Item = BookingBatch>>(batches: I) -> Self {
        let mut waiting = Self::default();
        batches.into_iter().for_each(|batch| waiting.push(batch));
        waiting
    }
}
