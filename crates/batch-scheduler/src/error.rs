use crate::{NewSequence, SequenceId};

/// A [`Scheduler`](crate::Scheduler) cannot be made of these parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A bound that would let nothing run.
    #[error("{setting} must be at least {least}, not {value}")]
    TooSmall {
        /// The field of [`SchedulerConfig`](crate::SchedulerConfig).
        setting: &'static str,
        /// Its value.
        value: usize,
        /// The least value that works with the others.
        least: usize,
    },
    /// Sequences are scheduled over one cache group that keeps whole prefixes.
    #[error("batches are scheduled over one cache group that keeps all blocks of a sequence")]
    CacheGroups,
}

/// A sequence was not taken; it comes back as it was.
#[derive(Debug, thiserror::Error)]
#[error("sequence {} is refused", self.id())]
pub struct Rejected {
    /// Why.
    #[source]
    pub reason: Rejection,
    /// The sequence.
    pub sequence: Box<NewSequence>,
}

impl Rejected {
    fn id(&self) -> SequenceId {
        self.sequence.id
    }
}

/// Why a sequence is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Now is no time; later may be.
    #[error("{waiting} sequences are waiting already")]
    QueueFull {
        /// How many wait: the bound.
        waiting: usize,
    },
    /// Prompt and generated tokens would be more than the model's context.
    #[error("{tokens} tokens do not fit into a context of {context_length}")]
    ContextLength {
        /// Prompt and `max_new_tokens` together.
        tokens: usize,
        /// The most there may be.
        context_length: usize,
    },
    /// The KV cache is too small for the sequence, even alone.
    #[error("the sequence needs {needed_blocks} KV blocks, and there are {total_blocks}")]
    NeverFits {
        /// Blocks that it would have at its end.
        needed_blocks: usize,
        /// All blocks of the pool.
        total_blocks: usize,
    },
    /// There is no token to start from.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// No more tokens may be generated.
    #[error("{max_new_tokens} tokens may be generated and {emitted} were already")]
    NothingToGenerate {
        /// The bound.
        max_new_tokens: usize,
        /// Tokens generated before.
        emitted: usize,
    },
    /// The id is in use.
    #[error("there is a sequence of this id")]
    DuplicateId,
    /// The chain has tokens already, or another block size than the pool.
    #[error("the chain is not an empty one of the pool's block size")]
    Chain,
}
