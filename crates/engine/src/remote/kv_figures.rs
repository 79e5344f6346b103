use std::sync::atomic::{AtomicU64, Ordering};

use forebay_mux::events::{KvLedger, KvSyncAnswer};

/// What an engine's KV events come to, to be told to an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvFigures {
    /// Distinct blocks that the engine has announced and holds.
    pub announced_blocks: u64,
    /// Recent batches of changes that are kept for followers that missed some.
    pub ring_batches: u64,
    /// How many bytes those count.
    pub ring_bytes: u64,
    /// How many bytes they may count; 0 where nothing publishes.
    pub ring_limit_bytes: u64,
    /// How often a follower was told the batches that it missed.
    pub ranges: u64,
    /// How often a follower was told of everything: when it began, or had missed more than is kept.
    pub snapshots: u64,
}

/// The figures as who publishes and who answers write them; they do not wait for a reader.
#[derive(Debug, Default)]
pub(super) struct KvCounts {
    announced_blocks: AtomicU64,
    ring_batches: AtomicU64,
    ring_bytes: AtomicU64,
    ring_limit_bytes: AtomicU64,
    ranges: AtomicU64,
    snapshots: AtomicU64,
}

impl KvCounts {
    /// The publisher's ledger has come to this.
    pub(super) fn ledger(&self, ledger: &KvLedger) {
        let set = |figure: &AtomicU64, now: usize| figure.store(now as u64, Ordering::Relaxed);
        let (batches, bytes) = ledger.ring();
        set(&self.announced_blocks, ledger.len());
        set(&self.ring_batches, batches);
        set(&self.ring_bytes, bytes);
        set(&self.ring_limit_bytes, ledger.config().ring_bytes);
    }

    /// A follower gets this.
    pub(super) fn answer(&self, answer: &KvSyncAnswer) {
        let count = match answer {
            KvSyncAnswer::Range(_) => &self.ranges,
            KvSyncAnswer::Snapshot(_) => &self.snapshots,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn figures(&self) -> KvFigures {
        let now = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        KvFigures {
            announced_blocks: now(&self.announced_blocks),
            ring_batches: now(&self.ring_batches),
            ring_bytes: now(&self.ring_bytes),
            ring_limit_bytes: now(&self.ring_limit_bytes),
            ranges: now(&self.ranges),
            snapshots: now(&self.snapshots),
        }
    }
}
