use crate::{CacheGroup, RoutingHash, Tier};

/// A change of what one worker's KV cache holds, as routers need it: routing hashes only.
///
/// Never tokens, never content ids: a prompt cannot be read back from what leaves a worker. Blocks
/// are counted per (tier, group, hash): two blocks of different content may have one routing hash,
/// and the hash is removed when the last of them goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvEvent {
    /// Blocks became available, each the parent of the next.
    Stored {
        /// Where the bytes are.
        tier: Tier,
        /// Which cache group they belong to.
        group: CacheGroup,
        /// The hash before the first of `blocks`; `None` if that starts a sequence.
        parent: Option<RoutingHash>,
        /// The chained hashes, at least one.
        blocks: Vec<RoutingHash>,
    },
    /// Blocks are gone.
    Removed {
        /// Where the bytes were.
        tier: Tier,
        /// Which cache group they belonged to.
        group: CacheGroup,
        /// The chained hashes, at least one, in no particular order.
        blocks: Vec<RoutingHash>,
    },
    /// Every block of a tier, of all groups, is gone.
    Cleared {
        /// The tier that was cleared.
        tier: Tier,
    },
}
