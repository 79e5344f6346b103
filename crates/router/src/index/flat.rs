use forebay_tokens::{CacheGroup, KvEvent, RoutingHash, Tier};

use super::places::{Place, Places};
use super::shard::{Owner, Shard, Stored};
use super::{Match, Overlap, PrefixIndex};
use crate::WorkerRank;

/// A [`PrefixIndex`] in one process's memory: a hash table from routing hash to owners.
///
/// A routing hash names a block and everything before it, so no tree is needed: a prefix is found
/// by looking up one hash after another, and a parent is known by its child's hash. Looking up is
/// a few nanoseconds a block and owner.
///
/// **Memory.** 20 to 40 bytes for a block that one worker has, 30 to 45 for each of two, and less
/// the more have it, down to 10. At most the bound it was made with, and given back as blocks go.
/// At the bound a block that is not yet known is dropped and counted; blocks that are known stay.
///
/// **Pauses.** The table is many small ones, so that none takes long to grow. Clearing a tier and
/// removing a worker take no time at all: their entries are void at once, and swept as further
/// events are applied: one small table at a time, for each block that an event names 16 entries.
#[derive(Debug)]
pub struct FlatIndex {
    shards: Vec<Shard>,
    places: Places,
    sweep: Sweep,
    /// What the shards take.
    shards_bytes: usize,
    max_bytes: usize,
    dropped_blocks: u64,
}

/// At a hundred million blocks, a shard has 400,000.
const SHARDS: usize = 256;
/// How many entries are swept for each block that is applied: so that an event takes at most a few
/// times as long while there is something to sweep.
const SWEPT_PER_BLOCK: usize = 16;

/// Which retired places still have entries.
#[derive(Debug, Default)]
struct Sweep {
    /// The shard to sweep next.
    shard: usize,
    /// How many entries may be swept by now.
    credit: usize,
    /// Places that were retired before shard 0 was swept; none: nothing is to be swept.
    current: Vec<Place>,
    /// Places that were retired since: they need another round.
    next: Vec<Place>,
}

/// How far a rank has come along a chain.
#[derive(Clone, Copy, Default)]
struct Reached {
    length: u32,
    overlap: Overlap,
}

impl FlatIndex {
    /// An empty index that takes at most `max_bytes`, but 20 kB and 200 bytes for every worker's
    /// rank in any case.
    pub fn new(max_bytes: usize) -> Self {
        Self::with_shards(SHARDS, max_bytes)
    }

    /// As [`Self::new`], of 1 to 256 tables, a power of two.
    pub(crate) fn with_shards(shards: usize, max_bytes: usize) -> Self {
        debug_assert!(shards.is_power_of_two() && shards <= 256);
        let shards = std::iter::repeat_with(Shard::default).take(shards);
        Self {
            shards: shards.collect(),
            places: Places::default(),
            sweep: Sweep::default(),
            shards_bytes: 0,
            max_bytes,
            dropped_blocks: 0,
        }
    }

    pub(crate) fn store(&mut self, at: WorkerRank, tier: Tier, blocks: &[RoutingHash]) {
        let place = self.places.open(at, tier);
        let overhead = self.overhead_bytes();
        for &hash in blocks {
            let number = self.shard_of(hash);
            let mut stored = self.store_in(number, hash, place, overhead);
            if stored == Stored::Full && !self.sweep.current.is_empty() {
                self.sweep_shard(number);
                stored = self.store_in(number, hash, place, overhead);
            }
            match stored {
                Stored::New => self.places.added(place),
                Stored::Again => {}
                Stored::Full => self.dropped_blocks += 1,
            }
        }
    }

    fn store_in(&mut self, shard: usize, hash: RoutingHash, at: Place, overhead: usize) -> Stored {
        let room = self.max_bytes.saturating_sub(self.shards_bytes + overhead);
        let shard = &mut self.shards[shard];
        let before = shard.bytes();
        let stored = shard.store(hash, at, room);
        self.shards_bytes = self.shards_bytes - before + shard.bytes();
        stored
    }

    pub(crate) fn unstore(&mut self, at: WorkerRank, tier: Tier, blocks: &[RoutingHash]) {
        let Some(place) = self.places.get(at, tier) else {
            return;
        };
        for &hash in blocks {
            let number = self.shard_of(hash);
            let shard = &mut self.shards[number];
            let before = shard.bytes();
            if shard.remove(hash, place) {
                self.places.lost(place);
                self.shards_bytes = self.shards_bytes - before + shard.bytes();
            }
        }
    }

    fn clear(&mut self, at: WorkerRank, tier: Tier) {
        if let Some(place) = self.places.retire(at, tier) {
            match self.sweep.current.is_empty() {
                true => self.sweep.current.push(place),
                false => self.sweep.next.push(place),
            }
        }
    }

    /// Sweeps the next shard, if there is anything to sweep and it is time, as so many blocks are
    /// applied.
    fn sweep_next(&mut self, blocks: usize) {
        if self.sweep.current.is_empty() {
            return;
        }
        self.sweep.credit += blocks.max(1) * SWEPT_PER_BLOCK;
        if self.sweep.credit < self.shards[self.sweep.shard].len() {
            return;
        }
        self.sweep.credit = 0;
        if self.places.live_blocks() == 0 {
            self.shards.fill_with(Shard::default);
            self.shards_bytes = 0;
            self.sweep.shard = self.shards.len();
        } else {
            self.sweep_shard(self.sweep.shard);
            self.sweep.shard += 1;
        }
        if self.sweep.shard == self.shards.len() {
            for place in self.sweep.current.drain(..) {
                self.places.reuse(place);
            }
            std::mem::swap(&mut self.sweep.current, &mut self.sweep.next);
            self.sweep.shard = 0;
        }
    }

    fn sweep_shard(&mut self, number: usize) {
        let shard = &mut self.shards[number];
        let before = shard.bytes();
        shard.sweep(&self.places);
        self.shards_bytes = self.shards_bytes - before + shard.bytes();
    }

    /// By the hash's first bits: the table within takes others.
    fn shard_of(&self, hash: RoutingHash) -> usize {
        (hash.0 >> 56) as usize & (self.shards.len() - 1)
    }

    fn overhead_bytes(&self) -> usize {
        self.shards.len() * size_of::<Shard>() + self.places.bytes()
    }
}

impl PrefixIndex for FlatIndex {
    fn apply(&mut self, at: WorkerRank, event: &KvEvent) {
        self.sweep_next(match event {
            KvEvent::Stored { blocks, .. } | KvEvent::Removed { blocks, .. } => blocks.len(),
            KvEvent::Cleared { .. } => 0,
        });
        match event {
            KvEvent::Stored {
                tier,
                group: CacheGroup(0),
                parent: _,
                blocks,
            } => self.store(at, *tier, blocks),
            KvEvent::Removed {
                tier,
                group: CacheGroup(0),
                blocks,
            } => self.unstore(at, *tier, blocks),
            KvEvent::Cleared { tier } => self.clear(at, *tier),
            KvEvent::Stored { .. } | KvEvent::Removed { .. } => {}
        }
    }

    fn remove(&mut self, at: WorkerRank) {
        for tier in [Tier::G1, Tier::G2, Tier::G3, Tier::G4] {
            self.clear(at, tier);
        }
        self.places.close(at);
        self.sweep_next(0);
    }

    fn matches(&self, chain: &[RoutingHash]) -> Vec<Match> {
        let owners = |hash: RoutingHash| self.shards[self.shard_of(hash)].owners(hash);
        let Some((&first, rest)) = chain.split_first() else {
            return Vec::new();
        };
        let first_owners = owners(first);
        if first_owners.is_empty() {
            return Vec::new();
        }

        // How far each rank has come. An owner counts if its rank has everything before; a rank's
        // owners of one block come nearest tier first, and the others do not count any more.
        let mut reached = vec![Reached::default(); self.places.slots()];
        let mut advance = |length: u32, owner: &Owner| {
            let slot = self.places.slot(owner.place);
            let reached = slot.and_then(|slot| reached.get_mut(slot as usize));
            let reached = reached.filter(|reached| reached.length == length)?;
            reached.length += 1;
            reached.overlap.add(owner.place.tier(), 1);
            slot
        };
        // Who does not have the first block has no prefix.
        let slots: Vec<u32> = (first_owners.iter())
            .filter_map(|owner| advance(0, owner))
            .collect();
        for (length, &hash) in (1..).zip(rest) {
            let mut anyone = false;
            for owner in owners(hash) {
                anyone |= advance(length, owner).is_some();
            }
            if !anyone {
                break;
            }
        }
        let found = |slot: &u32| Match {
            at: self.places.rank(*slot),
            overlap: reached[*slot as usize].overlap,
        };
        slots.iter().map(found).collect()
    }

    fn len(&self) -> usize {
        self.places.live_blocks()
    }

    fn blocks_at(&self, at: WorkerRank) -> usize {
        self.places.blocks_at(at)
    }

    fn size_bytes(&self) -> usize {
        self.shards_bytes + self.overhead_bytes()
    }

    fn dropped_blocks(&self) -> u64 {
        self.dropped_blocks
    }
}
