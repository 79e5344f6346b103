use std::collections::BTreeMap;

use crate::sequence::{Rank, Sequence};

/// The sequences without blocks, first to be admitted first.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_rank: BTreeMap<Rank, Sequence>,
    tokens: usize,
}

impl Waiting {
    pub(crate) fn insert(&mut self, sequence: Sequence) {
        self.tokens += sequence.tokens().len();
        self.by_rank.insert(sequence.rank(), sequence);
    }

    pub(crate) fn remove(&mut self, rank: Rank) -> Option<Sequence> {
        let sequence = self.by_rank.remove(&rank)?;
        self.tokens -= sequence.tokens().len();
        Some(sequence)
    }

    pub(crate) fn get(&self, rank: Rank) -> Option<&Sequence> {
        self.by_rank.get(&rank)
    }

    /// The first `n`, to look at or to change what does not move them.
    pub(crate) fn first(&mut self, n: usize) -> impl Iterator<Item = &mut Sequence> {
        self.by_rank.values_mut().take(n)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_rank.len()
    }

    /// Tokens of all of them together.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}
