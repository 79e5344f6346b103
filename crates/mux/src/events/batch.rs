use forebay_tokens::{DpRank, KvEvent};

/// How far a worker's changes have come. Positions of a later epoch come after all of an earlier
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvPosition {
    /// The incarnation of the publisher; a later one has a larger number.
    pub epoch: u64,
    /// Counts the batches of an epoch, of all ranks, from 1 without a gap; 0 is before the first.
    pub sequence: u64,
}

/// What is true at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvMark {
    /// Up to where.
    pub position: KvPosition,
    /// The [`KvDigest`](super::KvDigest) of everything up to there.
    pub digest: u64,
}

/// Changes of one rank's KV cache that belong together.
///
/// They are *effective*: no block is removed that was not stored, so whoever applies every batch
/// has what the publisher has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvBatch {
    /// What is true after it.
    pub mark: KvMark,
    /// Whose cache changed.
    pub rank: DpRank,
    /// What changed, in order; at least one event.
    pub events: Vec<KvEvent>,
}

impl KvBatch {
    /// About how many bytes of memory it takes.
    pub(super) fn size_bytes(&self) -> usize {
        let blocks: usize = self.events.iter().map(blocks_of).sum();
        size_of::<Self>() + self.events.len() * size_of::<KvEvent>() + blocks * size_of::<u64>()
    }
}

/// How many blocks an event names.
pub(super) fn blocks_of(event: &KvEvent) -> usize {
    match event {
        KvEvent::Stored { blocks, .. } | KvEvent::Removed { blocks, .. } => blocks.len(),
        KvEvent::Cleared { .. } => 0,
    }
}
