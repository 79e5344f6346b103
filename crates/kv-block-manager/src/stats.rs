/// One cache group's blocks by state, and what its cache was good for so far.
///
/// Every block is in exactly one state: `free + cached + active == total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// All blocks.
    pub total: usize,
    /// Blocks that hold nothing.
    pub free: usize,
    /// Registered blocks that nobody uses; evicted when blocks are needed.
    pub cached: usize,
    /// Blocks that a guard holds: being filled, or registered and in use.
    pub active: usize,
    /// Blocks that prefix matches were asked for, since the pool was made.
    pub asked_blocks: u64,
    /// Blocks that prefix matches covered, since the pool was made.
    pub hit_blocks: u64,
    /// Cached blocks evicted for new content, since the pool was made.
    pub evicted_blocks: u64,
}
