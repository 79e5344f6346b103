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

    /// By the label of each kind.
    pub(super) fn all(&self) -> [(&'static str, u64); 3] {
        [
            ("range", &self.range),
            ("snapshot", &self.snapshot),
            ("digest", &self.digest),
        ]
        .map(|(by, count)| (by, count.load(Ordering::Relaxed)))
    }
}
