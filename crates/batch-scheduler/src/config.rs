use crate::ConfigError;

/// The bounds of a [`Scheduler`](crate::Scheduler).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// The most tokens one batch may have, prefill and decode together; at least `max_sequences`,
    /// so that every running sequence can decode in every batch.
    pub max_batch_tokens: usize,
    /// The most tokens of one sequence's prefill in one batch: long prompts go in chunks of at most
    /// this, so that others go on beside them. At least 1.
    pub max_chunk_tokens: usize,
    /// The most sequences running at once; at least 1.
    pub max_sequences: usize,
    /// The most sequences waiting to run; at least 1. Preempted ones wait outside this bound.
    pub max_waiting: usize,
    /// The most tokens a sequence may have, prompt and generated together; at least 2.
    pub context_length: usize,
}

impl SchedulerConfig {
    /// Checks that something could run within the bounds.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TooSmall`] for the first bound that is.
    pub fn check(&self) -> Result<(), ConfigError> {
        let least = [
            ("max_chunk_tokens", self.max_chunk_tokens, 1),
            ("max_sequences", self.max_sequences, 1),
            ("max_waiting", self.max_waiting, 1),
            ("context_length", self.context_length, 2),
            (
                "max_batch_tokens",
                self.max_batch_tokens,
                self.max_sequences,
            ),
        ];
        match least.into_iter().find(|(_, value, least)| value < least) {
            Some((setting, value, least)) => Err(ConfigError::TooSmall {
                setting,
                value,
                least,
            }),
            None => Ok(()),
        }
    }
}
