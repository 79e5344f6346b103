/// How busy a scheduler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Sequences that have blocks.
    pub running: usize,
    /// Sequences that wait for blocks, preempted ones included.
    pub waiting: usize,
    /// Tokens that must be computed before every sequence decodes; those that the cache will
    /// serve to waiting sequences included.
    pub prefill_tokens: usize,
    /// Blocks in use, by whomever.
    pub active_blocks: usize,
    /// Blocks whose content is cached and not in use.
    pub cached_blocks: usize,
    /// All blocks.
    pub total_blocks: usize,
}

impl Load {
    /// The share of blocks in use, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        self.active_blocks as f64 / self.total_blocks as f64
    }
}
