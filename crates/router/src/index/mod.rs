//! Which worker has which prefix.

mod flat;
mod overlap;
mod places;
mod shard;

use forebay_tokens::{KvEvent, RoutingHash};

pub use flat::FlatIndex;
pub use overlap::{Match, Overlap};

use crate::WorkerRank;

/// From a prompt's chain of routing hashes to how much of it each worker has.
///
/// An index holds, for every worker and rank, how often each hash is in each tier, and is fed by
/// the workers' [`KvEvent`]s. Whatever the events say, it takes them: parents that are unknown or
/// come later, blocks stored twice, blocks removed that it never saw. A hash is gone when it was
/// removed as often as it was stored; what is removed more often stays gone.
///
/// **Groups.** Only [`CacheGroup`](forebay_tokens::CacheGroup) 0 counts, by convention a model's
/// full attention: there a prefix is usable exactly as far as its blocks are there. What other
/// groups (sliding windows, state spaces) hold beside it is a matter of a few blocks at the end
/// of a prefix, and their events are ignored.
///
/// An index is a hint. A bounded one may forget, and then says less than there is; it never says
/// more than the events did.
pub trait PrefixIndex {
    /// Takes one event of a worker's rank.
    fn apply(&mut self, at: WorkerRank, event: &KvEvent);

    /// Forgets everything of a worker's rank, in all tiers: it is gone, or its state is about to
    /// be told from the beginning.
    fn remove(&mut self, at: WorkerRank);

    /// Which workers have a prefix of `chain` (the hashes of a prompt's full blocks, first to
    /// last), and how much of it; in no particular order, and those without any left out.
    fn matches(&self, chain: &[RoutingHash]) -> Vec<Match>;

    /// How many distinct blocks it knows, summed over workers, ranks and tiers.
    fn len(&self) -> usize;

    /// Whether it knows no block at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many distinct blocks it knows of one worker's rank, summed over tiers.
    fn blocks_at(&self, at: WorkerRank) -> usize;

    /// The memory it takes, in bytes.
    fn size_bytes(&self) -> usize;

    /// How many stored blocks it did not take for want of memory, since it was made. Those of
    /// them that are still on their workers cannot be found.
    fn dropped_blocks(&self) -> u64;
}
