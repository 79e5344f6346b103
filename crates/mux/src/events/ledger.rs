use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use forebay_tokens::{DpRank, KvEvent};

use super::batch::{KvBatch, KvMark, KvPosition};
use super::cut::pack;
use super::digest::KvDigest;
use super::holdings::Holdings;
use super::snapshot::{KvSnapshot, Table};

/// The bounds of a [`KvLedger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// How many bytes of recent batches are kept for those that missed some. Default 4 MiB.
    pub ring_bytes: usize,
    /// How many blocks a batch, or a part of a snapshot, names at most; at least 1. Default 16,384,
    /// which is 128 KiB on the wire.
    pub max_batch_blocks: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            ring_bytes: 4 << 20,
            max_batch_blocks: 16_384,
        }
    }
}

/// What a worker knows of its engine's KV caches, and has told others: the truth that followers are
/// repaired from, whatever the engine itself can tell again.
///
/// It holds at most 58 bytes for each distinct block, and the ring.
#[derive(Debug)]
pub struct KvLedger {
    config: LedgerConfig,
    position: KvPosition,
    digest: KvDigest,
    ranks: BTreeMap<DpRank, Holdings>,
    /// The last batches of this epoch, without a gap.
    ring: VecDeque<Arc<KvBatch>>,
    ring_bytes: usize,
}

/// The ledger's answer to a follower.
#[derive(Clone, Debug)]
pub struct KvSync {
    /// What is true after it.
    pub mark: KvMark,
    /// What leads there.
    pub answer: KvSyncAnswer,
}

/// What leads a follower to where the ledger is.
#[derive(Clone, Debug)]
pub enum KvSyncAnswer {
    /// Every batch after the position that it named.
    Range(Vec<Arc<KvBatch>>),
    /// Everything anew.
    Snapshot(KvSnapshot),
}

impl KvLedger {
    /// Of empty caches, at the beginning of an epoch.
    pub fn new(config: LedgerConfig, epoch: u64) -> Self {
        Self {
            config,
            position: KvPosition { epoch, sequence: 0 },
            digest: KvDigest::default(),
            ranks: BTreeMap::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
        }
    }

    /// Takes what the engine says has changed, and gives the batches to publish: what had an effect,
    /// perhaps nothing.
    pub fn change(&mut self, rank: DpRank, events: Vec<KvEvent>) -> Vec<Arc<KvBatch>> {
        let holdings = self.ranks.entry(rank).or_default();
        let effective = events.into_iter().filter_map(|event| holdings.apply(event));
        let effective: Vec<_> = effective.collect();
        self.publish(rank, effective)
    }

    /// Takes a rank's whole cache as the engine tells it anew, and gives the batches that lead
    /// there from what was known.
    pub fn replace(&mut self, rank: DpRank, events: Vec<KvEvent>) -> Vec<Arc<KvBatch>> {
        let mut holdings = Holdings::default();
        for event in events {
            holdings.apply(event);
        }
        let before = self.ranks.insert(rank, Holdings::default());
        let changes = holdings.changes_since(&before.unwrap_or_default());
        self.ranks.insert(rank, holdings);
        self.publish(rank, changes)
    }

    /// What is true now.
    pub fn mark(&self) -> KvMark {
        KvMark {
            position: self.position,
            digest: self.digest.value(),
        }
    }

    /// How many distinct blocks it holds, over all ranks, tiers and groups.
    pub fn len(&self) -> usize {
        self.ranks.values().map(Holdings::len).sum()
    }

    /// The recent batches that it keeps for those that missed some: how many, and how many bytes
    /// they count, at most [`LedgerConfig::ring_bytes`].
    pub fn ring(&self) -> (usize, usize) {
        (self.ring.len(), self.ring_bytes)
    }

    /// Its bounds.
    pub fn config(&self) -> LedgerConfig {
        self.config
    }

    /// Whether it holds no block.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a follower needs that has everything up to `since`: a range, if the ring reaches back
    /// to there, else a snapshot.
    pub fn sync(&self, since: Option<KvPosition>) -> KvSync {
        let range = since.and_then(|since| self.range(since));
        KvSync {
            mark: self.mark(),
            answer: match range {
                Some(batches) => KvSyncAnswer::Range(batches),
                None => KvSyncAnswer::Snapshot(self.snapshot()),
            },
        }
    }

    fn range(&self, since: KvPosition) -> Option<Vec<Arc<KvBatch>>> {
        if since.epoch != self.position.epoch {
            return None;
        }
        let missing = self.position.sequence.checked_sub(since.sequence)?;
        let missing = usize::try_from(missing).ok()?;
        let known = self.ring.len().checked_sub(missing)?;
        Some(self.ring.range(known..).cloned().collect())
    }

    fn snapshot(&self) -> KvSnapshot {
        let tables = self.ranks.iter().flat_map(|(rank, holdings)| {
            holdings.blocks().map(|(place, blocks)| Table {
                rank: *rank,
                place,
                blocks,
            })
        });
        KvSnapshot {
            ranks: self.ranks.keys().copied().collect(),
            tables: tables.collect(),
            max_blocks: self.config.max_batch_blocks,
        }
    }

    /// Numbers effective events, and keeps them for a while.
    fn publish(&mut self, rank: DpRank, events: Vec<KvEvent>) -> Vec<Arc<KvBatch>> {
        let mut batches = Vec::new();
        for events in pack(events, self.config.max_batch_blocks) {
            for event in &events {
                self.digest.apply(rank, event);
            }
            self.position.sequence += 1;
            let mark = self.mark();
            let batch = Arc::new(KvBatch { mark, rank, events });
            self.ring_bytes += batch.size_bytes();
            self.ring.push_back(batch.clone());
            batches.push(batch);
        }
        while self.ring_bytes > self.config.ring_bytes {
            let Some(oldest) = self.ring.pop_front() else {
                break;
            };
            self.ring_bytes -= oldest.size_bytes();
        }
        batches
    }
}
