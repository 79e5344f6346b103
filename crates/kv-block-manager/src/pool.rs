use std::fmt;
use std::sync::Arc;

use forebay_tokens::{BlockId, BlockIdentity, CacheGroup, ContentId, KvEvent, RoutingHash};
use parking_lot::Mutex;

use crate::block::Hold;
use crate::event_log::EventLog;
use crate::group::{Group, Match};
use crate::{
    ConfigError, GroupSpec, GroupStats, MutableBlock, NotEnoughBlocks, PoolConfig, RegisteredBlock,
};

/// The KV blocks of one memory, by cache group.
///
/// It keeps books, not bytes: block ids index whatever memory the engine has. A clone is the same
/// pool. All books are under one mutex, held for the time of one call and never across a drop of
/// a guard; there is no finer locking whose interleavings would need a model checker.
///
/// Every method that takes a [`CacheGroup`] panics if the pool has no such group.
#[derive(Clone)]
pub struct BlockPool {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    config: PoolConfig,
    books: Mutex<Books>,
}

struct Books {
    groups: Vec<Group>,
    log: EventLog,
    /// How many hashes the log may name before it is replaced by the present state.
    max_log_hashes: usize,
}

/// What a sequence needs of one group at once; see [`BlockPool::acquire`].
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The chain that may be served from the cache.
    pub prefix: &'a [BlockIdentity],
    /// How many blocks the sequence needs altogether, those of the prefix included.
    pub n_blocks: usize,
    /// How many more blocks must be left to be given out afterwards.
    pub n_spare: usize,
}

/// The longest cached prefix of a chain.
#[derive(Debug, Default)]
pub struct PrefixMatch {
    /// The prefix's length in blocks.
    pub n_blocks: usize,
    /// The blocks that a sequence needs to go on from there, in order: all of the prefix, or its
    /// end if the group's retention rule says so (see
    /// [`GroupSpec::live_blocks`](crate::GroupSpec::live_blocks)).
    pub blocks: Vec<RegisteredBlock>,
}

/// What [`BlockPool::acquire`] gave.
#[derive(Debug, Default)]
pub struct Acquired {
    /// What the cache had.
    pub matched: PrefixMatch,
    /// Blocks to fill, for what follows the match.
    pub fresh: Vec<MutableBlock>,
}

impl BlockPool {
    /// A pool with every block free.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there is no group, too many, or one without blocks.
    pub fn new(config: PoolConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let groups = (0..=u8::MAX)
            .zip(&config.groups)
            .map(|(number, group)| Group::new(CacheGroup(number), group))
            .collect();
        let n_blocks: usize = config.groups.iter().map(|g| g.n_blocks as usize).sum();
        let books = Mutex::new(Books {
            groups,
            log: EventLog::new(config.tier),
            max_log_hashes: 2 * n_blocks,
        });
        Ok(Self {
            shared: Arc::new(Shared { config, books }),
        })
    }

    /// What the pool was made of.
    pub fn config(&self) -> &PoolConfig {
        &self.shared.config
    }

    /// A group's rules.
    pub fn spec(&self, group: CacheGroup) -> &GroupSpec {
        &self.shared.config.groups[usize::from(group.0)].spec
    }

    /// `n` blocks to fill, all or none; cached content that nobody uses gives way, longest unused
    /// first.
    ///
    /// # Errors
    ///
    /// [`NotEnoughBlocks`] with the group's numbers.
    pub fn allocate(
        &self,
        group: CacheGroup,
        n: usize,
    ) -> Result<Vec<MutableBlock>, NotEnoughBlocks> {
        let demand = Demand {
            prefix: &[],
            n_blocks: n,
            n_spare: 0,
        };
        Ok(self.acquire(group, demand)?.fresh)
    }

    /// Takes into use the longest cached prefix of a chain.
    pub fn match_prefix(&self, group: CacheGroup, chain: &[BlockIdentity]) -> PrefixMatch {
        let demand = Demand {
            prefix: chain,
            n_blocks: 0,
            n_spare: 0,
        };
        self.acquire(group, demand)
            .expect("no fresh block was asked for")
            .matched
    }

    /// The longest cached prefix and fresh blocks for the rest, all or nothing, in one step: what
    /// is matched is not evicted to make the fresh ones.
    ///
    /// # Errors
    ///
    /// [`NotEnoughBlocks`] with the group's numbers; nothing was taken or counted as a hit.
    pub fn acquire(
        &self,
        group: CacheGroup,
        demand: Demand<'_>,
    ) -> Result<Acquired, NotEnoughBlocks> {
        let (matched, fresh) = self.shared.acquire(group, demand)?;
        let hold = |id| Hold::new(self.shared.clone(), group, id);
        let live = &demand.prefix[matched.n_blocks - matched.live.len()..matched.n_blocks];
        Ok(Acquired {
            matched: PrefixMatch {
                n_blocks: matched.n_blocks,
                blocks: matched
                    .live
                    .iter()
                    .zip(live)
                    .map(|(id, identity)| RegisteredBlock::new(hold(*id), *identity))
                    .collect(),
            },
            fresh: fresh
                .into_iter()
                .map(|id| MutableBlock::new(hold(id)))
                .collect(),
        })
    }

    /// The length in blocks of the longest cached prefix of a chain, at this moment: nothing is
    /// taken into use or counted.
    pub fn prefix_len(&self, group: CacheGroup, chain: &[BlockIdentity]) -> usize {
        self.shared.books.lock().group(group).find(chain).n_blocks
    }

    /// Takes into use the block that holds a content.
    pub fn get(&self, group: CacheGroup, content: &ContentId) -> Option<RegisteredBlock> {
        Shared::get(&self.shared, group, content)
    }

    /// Drops all cached content that nobody uses. What is in use stays registered; the events say
    /// so, with a `Cleared` before it.
    pub fn clear(&self) {
        let mut books = self.shared.books.lock();
        books.groups.iter_mut().for_each(Group::clear);
        books.restart_log();
    }

    /// What happened since the last call, in order. Applied to a set of hashes they give exactly
    /// the routing hashes that are registered now.
    ///
    /// If nobody asks for long, the events are replaced by a `Cleared` and the present state, so
    /// that they never name more than two hashes for each block of the pool.
    pub fn take_events(&self) -> Vec<KvEvent> {
        self.shared.books.lock().log.take()
    }

    /// The present state as `Stored` events, for an observer that knows nothing; parents come
    /// before their children. Events already taken are part of it, and those not yet taken too.
    pub fn snapshot(&self) -> Vec<KvEvent> {
        let books = self.shared.books.lock();
        let mut log = EventLog::new(self.shared.config.tier);
        books
            .groups
            .iter()
            .for_each(|group| group.tell_all(&mut log));
        log.take()
    }

    /// A group's blocks by state, and its hits so far.
    pub fn stats(&self, group: CacheGroup) -> GroupStats {
        self.shared.books.lock().group(group).stats()
    }
}

impl Shared {
    fn acquire(
        &self,
        group: CacheGroup,
        demand: Demand<'_>,
    ) -> Result<(Match, Vec<BlockId>), NotEnoughBlocks> {
        let mut books = self.books.lock();
        let Books { groups, log, .. } = &mut *books;
        let group = &mut groups[usize::from(group.0)];
        let matched = group.find(demand.prefix);
        let n_fresh = demand.n_blocks.saturating_sub(matched.n_blocks);
        let fresh = group.acquire(&matched, demand.prefix.len(), n_fresh, demand.n_spare, log)?;
        books.bound_log();
        Ok((matched, fresh))
    }

    pub(crate) fn register(
        &self,
        group: CacheGroup,
        id: BlockId,
        identity: BlockIdentity,
        parent: Option<RoutingHash>,
        depth: u32,
    ) -> BlockId {
        let mut books = self.books.lock();
        let Books { groups, log, .. } = &mut *books;
        let id = groups[usize::from(group.0)].register(id, identity, parent, depth, log);
        books.bound_log();
        id
    }

    pub(crate) fn share(&self, group: CacheGroup, id: BlockId) {
        self.books.lock().group_mut(group).share(id);
    }

    pub(crate) fn release(&self, group: CacheGroup, id: BlockId) {
        self.books.lock().group_mut(group).release(id);
    }

    pub(crate) fn get(
        self: &Arc<Self>,
        group: CacheGroup,
        content: &ContentId,
    ) -> Option<RegisteredBlock> {
        let mut books = self.books.lock();
        let (id, identity) = books.group(group).block_of(content)?;
        books.group_mut(group).share(id);
        let hold = Hold::new(self.clone(), group, id);
        Some(RegisteredBlock::new(hold, identity))
    }
}

impl Books {
    fn group(&self, group: CacheGroup) -> &Group {
        &self.groups[usize::from(group.0)]
    }

    fn group_mut(&mut self, group: CacheGroup) -> &mut Group {
        &mut self.groups[usize::from(group.0)]
    }

    fn bound_log(&mut self) {
        if self.log.hashes() > self.max_log_hashes {
            self.restart_log();
        }
    }

    fn restart_log(&mut self) {
        self.log.cleared();
        for group in &self.groups {
            group.tell_all(&mut self.log);
        }
    }
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let books = self.shared.books.lock();
        let stats: Vec<_> = books.groups.iter().map(Group::stats).collect();
        f.debug_struct("BlockPool").field("groups", &stats).finish()
    }
}
