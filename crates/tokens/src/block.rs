use std::fmt;
use std::num::NonZeroU32;

/// How many tokens one KV block holds; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(NonZeroU32);

/// A block size of zero tokens was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a KV block holds at least one token")]
pub struct ZeroBlockSize;

impl BlockSize {
    /// A block of `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`ZeroBlockSize`] for 0.
    pub const fn new(tokens: u32) -> Result<Self, ZeroBlockSize> {
        match NonZeroU32::new(tokens) {
            Some(tokens) => Ok(Self(tokens)),
            None => Err(ZeroBlockSize),
        }
    }

    /// The size in tokens.
    pub const fn get(self) -> usize {
        self.0.get() as usize
    }

    /// How many blocks hold `tokens` tokens, the last perhaps partly filled.
    pub const fn blocks_for(self, tokens: usize) -> usize {
        tokens.div_ceil(self.get())
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = ZeroBlockSize;

    fn try_from(tokens: u32) -> Result<Self, ZeroBlockSize> {
        Self::new(tokens)
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a KV block's bytes are, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The device that computes.
    G1,
    /// Host memory.
    G2,
    /// Local disk.
    G3,
    /// Remote: object store or another host.
    G4,
}

/// The index of a cache group within a model, from 0.
///
/// Layers that keep their cache by the same rule (full attention, sliding window, state space,
/// cross attention) form a group; most models have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheGroup(pub u8);

impl fmt::Display for CacheGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
