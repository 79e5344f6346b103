use forebay_tokens::{BlockSize, Tier};

use crate::{ConfigError, GroupSpec};

/// What a [`BlockPool`](crate::BlockPool) is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Where the blocks' bytes are; named in every event.
    pub tier: Tier,
    /// The cache groups, in the order of their [`CacheGroup`](forebay_tokens::CacheGroup) numbers;
    /// 1 to 256.
    pub groups: Vec<GroupConfig>,
}

/// One cache group of a pool: its rules and its share of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// The group's rules.
    pub spec: GroupSpec,
    /// How many physical blocks it has, ids `0..n_blocks`; at least 1.
    pub n_blocks: u32,
}

impl PoolConfig {
    /// The common case: device memory, one full-attention group.
    pub fn full_attention(n_blocks: u32, block_size: BlockSize) -> Self {
        Self {
            tier: Tier::G1,
            groups: vec![GroupConfig {
                spec: GroupSpec::full_attention(block_size),
                n_blocks,
            }],
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.groups.is_empty() || self.groups.len() > 256 {
            return Err(ConfigError::Groups(self.groups.len()));
        }
        match self.groups.iter().position(|group| group.n_blocks == 0) {
            Some(group) => Err(ConfigError::NoBlocks { group }),
            None => Ok(()),
        }
    }
}
