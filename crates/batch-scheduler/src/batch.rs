use std::ops::Range;

use forebay_tokens::TokenId;

use crate::SequenceId;

/// What one forward pass computes.
///
/// Made by [`Scheduler::schedule`](crate::Scheduler::schedule), given back to
/// [`Scheduler::complete`](crate::Scheduler::complete) when the pass is done.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is computed and completed"]
pub struct Batch {
    pub(crate) step: u64,
    pub(crate) items: Vec<BatchItem>,
    pub(crate) preempted: Vec<SequenceId>,
}

/// One sequence's part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchItem {
    /// Whose; the tokens and the block table are at
    /// [`Scheduler::sequence`](crate::Scheduler::sequence).
    pub id: SequenceId,
    /// The positions to compute, never empty: indices into the sequence's tokens. Everything before
    /// them has its KV in place, and the block table reaches to their end.
    pub tokens: Range<usize>,
    /// Whether the last position's logits give a new token; else this is a chunk of a prefill.
    pub samples: bool,
    /// Prompt tokens that the cache had when the sequence was first admitted.
    pub cached_tokens: usize,
}

impl Batch {
    /// The parts: decodes first, then prefills.
    pub fn items(&self) -> &[BatchItem] {
        &self.items
    }

    /// Whether there is nothing to compute. There may still be sequences, waiting for blocks that
    /// somebody beside the scheduler holds.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Positions to compute, over all parts.
    pub fn n_tokens(&self) -> usize {
        self.items.iter().map(|item| item.tokens.len()).sum()
    }

    /// How many parts give a token.
    pub fn n_samples(&self) -> usize {
        self.items.iter().filter(|item| item.samples).count()
    }

    /// The sequences that lost their blocks to others when this batch was made. They are waiting
    /// again.
    pub fn preempted(&self) -> &[SequenceId] {
        &self.preempted
    }
}

/// The token that was sampled for one part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Whether it ends the sequence.
    pub stop: bool,
}

/// What a batch did for one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whose.
    pub id: SequenceId,
    /// The token that was appended; `None` for a chunk of a prefill.
    pub token: Option<TokenId>,
    /// Why the sequence is over and gone, if it is.
    pub finish: Option<Finish>,
}

/// Why a sequence is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The sampler said so.
    Stop,
    /// It has all the tokens it may have.
    Length,
}
