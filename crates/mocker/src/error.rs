/// A mocker cannot be made of these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A block without tokens.
    #[error("block_size_tokens must be at least 1")]
    BlockSize,
    /// A cache without blocks.
    #[error("kv_blocks must be at least 1")]
    KvBlocks,
    /// A vocabulary without tokens.
    #[error("vocabulary_size must be at least 1")]
    VocabularySize,
    /// Bounds under which nothing would run.
    #[error("the batching bounds do not work")]
    Scheduler(#[source] forebay_batch_scheduler::ConfigError),
    /// A speed that is not a number of at least 0.
    #[error("speed must be a number of at least 0, not {0}")]
    Speed(f64),
    /// A time or factor of a fault that cannot be.
    #[error("a fault's {field} must be a number {rule}, not {value}")]
    Fault {
        /// Which.
        field: &'static str,
        /// What would do.
        rule: &'static str,
        /// Its value.
        value: f64,
    },
}
