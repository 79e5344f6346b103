use std::sync::atomic::{AtomicU64, Ordering};

use forebay_engine::remote::KvRepair;

/// How often what was known of workers' KV caches had to be repaired, by how that was done.
#[derive(Debug, Default)]
pub(super) struct RepairCounts {
    range: AtomicU64,
    snapshot: AtomicU64,
    digest: AtomicU64,
}

impl RepairCounts {
    /// The label of each kind.
    pub(super) const KINDS: [&'static str; 3] = ["range", "snapshot", "digest"];

    /// Counts a repair; what a worker tells first is none.
    pub(super) fn count(&self, by: KvRepair) {
        let count = match by {
            KvRepair::Start => return,
            KvRepair::Range => &self.range,
            KvRepair::Snapshot => &self.snapshot,
            KvRepair::Digest => &self.digest,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// In the order of [`Self::KINDS`].
    pub(super) fn all(&self) -> [u64; 3] {
        [&self.range, &self.snapshot, &self.digest].map(|count| count.load(Ordering::Relaxed))
    }
}
