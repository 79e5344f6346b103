use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

use forebay_tokens::{BlockId, BlockIdentity, CacheGroup, ContentId, RoutingHash};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::event_log::EventLog;
use crate::{GroupConfig, GroupSpec, GroupStats, NotEnoughBlocks, Retention};

/// For how many blocks room is reserved from the start.
const RESERVED_SLOTS: usize = 1 << 20;

/// The blocks of one cache group and what each of them is at the moment. No lock, no guards: the
/// pool has these.
#[derive(Debug)]
pub(crate) struct Group {
    number: CacheGroup,
    spec: GroupSpec,
    n_blocks: usize,
    /// The blocks that were ever given out: a pool takes memory as it fills.
    slots: Vec<Slot>,
    /// Those of them that are free again; the last one is given out next.
    free: Vec<BlockId>,
    /// Registered blocks without users; the first is evicted next.
    evictable: BTreeSet<EvictionRank>,
    by_content: FxHashMap<ContentId, BlockId>,
    /// How many registered blocks have a routing hash: more than one if contents collide in it.
    by_routing: FxHashMap<RoutingHash, u32>,
    /// Counts the requests for blocks. What is released between two of them is released at once.
    clock: u64,
    asked_blocks: u64,
    hit_blocks: u64,
    evicted_blocks: u64,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Free,
    /// One guard fills it.
    Held,
    Registered(Registration),
}

#[derive(Clone, Copy, Debug)]
struct Registration {
    identity: BlockIdentity,
    parent: Option<RoutingHash>,
    /// Blocks before it in its chain.
    depth: u32,
    users: u32,
    /// The clock when the last user left.
    released: u64,
}

/// Longest unused first; of what was released at once, the end of a chain before its start, so
/// that what is left is still a prefix.
type EvictionRank = (u64, Reverse<u32>, BlockId);

impl Registration {
    fn eviction_rank(&self, id: BlockId) -> EvictionRank {
        (self.released, Reverse(self.depth), id)
    }
}

/// The part of a chain that the cache can stand for.
#[derive(Debug, Default)]
pub(crate) struct Match {
    /// The prefix's length in blocks.
    pub(crate) n_blocks: usize,
    /// The blocks that must be held to go on from it: the last ones of the prefix.
    pub(crate) live: Vec<BlockId>,
}

impl Group {
    pub(crate) fn new(number: CacheGroup, config: &GroupConfig) -> Self {
        Self {
            number,
            spec: config.spec,
            n_blocks: config.n_blocks as usize,
            // Address space; the system gives memory for it as it is written to.
            slots: Vec::with_capacity((config.n_blocks as usize).min(RESERVED_SLOTS)),
            free: Vec::new(),
            evictable: BTreeSet::new(),
            by_content: FxHashMap::default(),
            by_routing: FxHashMap::default(),
            clock: 0,
            asked_blocks: 0,
            hit_blocks: 0,
            evicted_blocks: 0,
        }
    }

    pub(crate) fn stats(&self) -> GroupStats {
        let (total, free, cached) = (self.n_blocks, self.n_free(), self.evictable.len());
        GroupStats {
            total,
            free,
            cached,
            active: total - free - cached,
            asked_blocks: self.asked_blocks,
            hit_blocks: self.hit_blocks,
            evicted_blocks: self.evicted_blocks,
        }
    }

    pub(crate) fn find(&self, chain: &[BlockIdentity]) -> Match {
        let block_of = |block: &BlockIdentity| self.by_content.get(&block.content).copied();
        if self.spec.retention == Retention::All {
            let live: Vec<_> = chain.iter().map_while(block_of).collect();
            return Match {
                n_blocks: live.len(),
                live,
            };
        }
        // Any prefix will do whose live end is cached; the longest one is the last to be seen.
        let (mut run, mut prefix) = (0, 0..0);
        for (i, block) in chain.iter().enumerate() {
            run = if block_of(block).is_some() {
                run + 1
            } else {
                0
            };
            let live = self.spec.live_blocks((i + 1) * self.spec.block_size.get());
            if live.len() <= run {
                prefix = live;
            }
        }
        Match {
            n_blocks: prefix.end,
            live: chain[prefix].iter().filter_map(block_of).collect(),
        }
    }

    /// Counts one more user for each block of a match, and gives out `n_fresh` blocks besides,
    /// after which `n_spare` more could be given out. All or nothing.
    pub(crate) fn acquire(
        &mut self,
        matched: &Match,
        n_asked: usize,
        n_fresh: usize,
        n_spare: usize,
        log: &mut EventLog,
    ) -> Result<Vec<BlockId>, NotEnoughBlocks> {
        let revived = matched.live.iter().filter(|id| self.is_unused(**id));
        let evictable = self.evictable.len() - revived.count();
        if n_fresh + n_spare > self.n_free() + evictable {
            return Err(NotEnoughBlocks {
                group: self.number,
                wanted: n_fresh + n_spare,
                free: self.n_free(),
                evictable,
            });
        }
        self.clock += 1;
        self.asked_blocks += n_asked as u64;
        self.hit_blocks += matched.n_blocks as u64;
        matched.live.iter().for_each(|id| self.share(*id));
        Ok((0..n_fresh).map(|_| self.take_one(log)).collect())
    }

    fn is_unused(&self, id: BlockId) -> bool {
        matches!(
            self.slot(id),
            Slot::Registered(Registration { users: 0, .. })
        )
    }

    fn take_one(&mut self, log: &mut EventLog) -> BlockId {
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.slots.len() < self.n_blocks => return self.take_untouched(),
            None => self.evict(log),
        };
        *self.slot_mut(id) = Slot::Held;
        id
    }

    /// Takes the first block that was never given out.
    fn take_untouched(&mut self) -> BlockId {
        let id = u32::try_from(self.slots.len()).expect("a group's blocks are counted by a u32");
        self.slots.push(Slot::Held);
        BlockId(id)
    }

    /// How many blocks hold nothing.
    fn n_free(&self) -> usize {
        self.free.len() + self.n_blocks - self.slots.len()
    }

    /// Forgets the cached block that was unused longest.
    fn evict(&mut self, log: &mut EventLog) -> BlockId {
        let (.., id) = self
            .evictable
            .pop_first()
            .expect("`acquire` counted the evictable blocks");
        self.evicted_blocks += 1;
        if let Some(gone) = self.unregister(id) {
            log.removed(self.number, gone);
        }
        id
    }

    /// Frees a registered block; its routing hash, if that was the last one with it.
    fn unregister(&mut self, id: BlockId) -> Option<RoutingHash> {
        let slot = std::mem::replace(self.slot_mut(id), Slot::Free);
        let Slot::Registered(Registration { identity, .. }) = slot else {
            unreachable!("only registered blocks are evictable");
        };
        self.by_content.remove(&identity.content);
        let Entry::Occupied(mut count) = self.by_routing.entry(identity.routing) else {
            unreachable!("every registered block is counted");
        };
        *count.get_mut() -= 1;
        (*count.get() == 0).then(|| count.remove_entry().0)
    }

    /// Makes a held block's content known, with its holder as the first user. If the content is
    /// known already, the holder becomes a user of that block instead, and the held one is free.
    pub(crate) fn register(
        &mut self,
        id: BlockId,
        identity: BlockIdentity,
        parent: Option<RoutingHash>,
        depth: u32,
        log: &mut EventLog,
    ) -> BlockId {
        match self.by_content.entry(identity.content) {
            Entry::Occupied(existing) => {
                let existing = *existing.get();
                self.release(id);
                self.share(existing);
                return existing;
            }
            Entry::Vacant(new) => new.insert(id),
        };
        let count = self.by_routing.entry(identity.routing).or_default();
        *count += 1;
        if *count == 1 {
            log.stored(self.number, parent, identity.routing);
        }
        *self.slot_mut(id) = Slot::Registered(Registration {
            identity,
            parent,
            depth,
            users: 1,
            released: 0,
        });
        id
    }

    /// One more user of a registered block.
    pub(crate) fn share(&mut self, id: BlockId) {
        let Slot::Registered(registration) = self.slot_mut(id) else {
            unreachable!("only registered blocks are shared");
        };
        let before = *registration;
        registration.users += 1;
        if before.users == 0 {
            self.evictable.remove(&before.eviction_rank(id));
        }
    }

    /// One guard less: a block being filled is free again, a registered one loses a user.
    pub(crate) fn release(&mut self, id: BlockId) {
        let clock = self.clock;
        match self.slot_mut(id) {
            Slot::Free => unreachable!("a guard's block is never free"),
            slot @ Slot::Held => {
                *slot = Slot::Free;
                self.free.push(id);
            }
            Slot::Registered(registration) => {
                registration.users -= 1;
                if registration.users == 0 {
                    registration.released = clock;
                    let rank = registration.eviction_rank(id);
                    self.evictable.insert(rank);
                }
            }
        }
    }

    /// Frees every registered block without users. The caller tells of it.
    pub(crate) fn clear(&mut self) {
        for (.., id) in std::mem::take(&mut self.evictable) {
            self.unregister(id);
            self.free.push(id);
        }
    }

    /// Tells of every registered block as if it were new: parents first, chains in one piece.
    pub(crate) fn tell_all(&self, log: &mut EventLog) {
        let mut blocks: Vec<&Registration> = self
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Registered(registration) => Some(registration),
                _ => None,
            })
            .collect();
        blocks.sort_by_key(|block| block.depth);
        let mut children: FxHashMap<RoutingHash, Vec<&Registration>> = FxHashMap::default();
        for block in &blocks {
            if let Some(parent) = block.parent {
                children.entry(parent).or_default().push(block);
            }
        }
        let mut told = FxHashSet::default();
        for block in blocks {
            let mut next = Some(block);
            while let Some(block) = next.filter(|block| told.insert(block.identity.routing)) {
                let routing = block.identity.routing;
                log.stored(self.number, block.parent, routing);
                next = children.get(&routing).and_then(|children| {
                    let mut children = children.iter().copied();
                    children.find(|child| !told.contains(&child.identity.routing))
                });
            }
        }
    }

    pub(crate) fn block_of(&self, content: &ContentId) -> Option<(BlockId, BlockIdentity)> {
        let id = *self.by_content.get(content)?;
        match self.slot(id) {
            Slot::Registered(registration) => Some((id, registration.identity)),
            _ => None,
        }
    }

    fn slot(&self, id: BlockId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    fn slot_mut(&mut self, id: BlockId) -> &mut Slot {
        &mut self.slots[id.0 as usize]
    }
}
