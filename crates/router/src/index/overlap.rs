use forebay_tokens::Tier;

use crate::WorkerRank;

/// What one worker has of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The worker and its rank.
    pub at: WorkerRank,
    /// How much it has; at least one block.
    pub overlap: Overlap,
}

/// The longest prefix of a prompt of which a worker has every block, in blocks by tier.
///
/// A block may be in any tier, and counts for the nearest that has it. The prefix ends at the
/// first block that is in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    by_tier: [u32; 4],
}

impl Overlap {
    /// `blocks` blocks, all in one tier.
    pub fn in_tier(tier: Tier, blocks: u32) -> Self {
        let mut overlap = Self::default();
        overlap.add(tier, blocks);
        overlap
    }

    /// Lengthens the prefix by blocks whose nearest tier is `tier`.
    pub fn add(&mut self, tier: Tier, blocks: u32) {
        self.by_tier[tier as usize] += blocks;
    }

    /// The length of the prefix in blocks.
    pub fn blocks(&self) -> u32 {
        self.by_tier.iter().sum()
    }

    /// How many of its blocks have `tier` as their nearest.
    pub fn blocks_in(&self, tier: Tier) -> u32 {
        self.by_tier[tier as usize]
    }
}
