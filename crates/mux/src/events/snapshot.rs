use forebay_tokens::{CacheGroup, DpRank, KvEvent, Tier};

use super::cut::pack;
use super::runs::{Block, runs};

/// Everything a worker's KV caches hold at one position: a copy of the ledger's blocks, quick to
/// take; the work of making events of it is done by [`parts`](Self::parts), elsewhere.
#[derive(Clone, Debug)]
pub struct KvSnapshot {
    pub(super) ranks: Vec<DpRank>,
    pub(super) tables: Vec<Table>,
    pub(super) max_blocks: usize,
}

/// The blocks of one table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) rank: DpRank,
    pub(super) place: (Tier, CacheGroup),
    pub(super) blocks: Vec<Block>,
}

impl KvSnapshot {
    /// It as stored events, in parts of a bounded number of blocks. Each rank of the worker has at
    /// least one part, perhaps without events.
    ///
    /// It takes time: about a second for a few million blocks.
    pub fn parts(self) -> impl Iterator<Item = (DpRank, Vec<KvEvent>)> {
        let max_blocks = self.max_blocks;
        let ranks = self.ranks.into_iter().map(|rank| (rank, Vec::new()));
        let tables = self.tables.into_iter().flat_map(move |table| {
            let events = runs(table.place, table.blocks);
            pack(events, max_blocks).map(move |events| (table.rank, events))
        });
        ranks.chain(tables)
    }
}
