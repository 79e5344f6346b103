use forebay_tokens::CacheGroup;

/// A [`PoolConfig`](crate::PoolConfig) describes no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No cache group, or more than [`CacheGroup`] can number.
    #[error("a block pool has 1 to 256 cache groups, not {0}")]
    Groups(usize),
    /// A cache group without blocks.
    #[error("cache group {group} has no blocks")]
    NoBlocks {
        /// The group's number.
        group: usize,
    },
}

/// The blocks asked for are not to be had now; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cache group {group} cannot give {wanted} blocks: {free} free, {evictable} cached without use"
)]
pub struct NotEnoughBlocks {
    /// The cache group that was asked.
    pub group: CacheGroup,
    /// Fresh blocks asked for, those that were to stay spare included.
    pub wanted: usize,
    /// Blocks that hold nothing.
    pub free: usize,
    /// Blocks that hold cached content which nobody uses and the caller did not match.
    pub evictable: usize,
}
