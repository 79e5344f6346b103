use std::fmt;

use forebay_tokens::{BlockChain, TokenId};

/// A sequence's name within one scheduler, given by the caller; each choice of a request with
/// `n > 1` is a sequence of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How urgent a sequence is: **lower goes first**, 0 is usual. The field's convention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub i32);

/// A sequence to generate.
#[derive(Clone, Debug)]
pub struct NewSequence {
    /// Its name; of no sequence that the scheduler has at the moment.
    pub id: SequenceId,
    /// The tokens to start from; at least one.
    pub prompt: Vec<TokenId>,
    /// Tokens that were generated already, by another worker or before a restart; generation goes
    /// on after them.
    pub emitted: Vec<TokenId>,
    /// How many tokens may be generated in all, those in `emitted` included; more than these.
    pub max_new_tokens: usize,
    /// Its place among the others.
    pub priority: Priority,
    /// An **empty** chain of the pool's block size: with whom KV is shared, under which routing
    /// seed, and where multimodal features are. The scheduler feeds it.
    pub chain: BlockChain,
}
