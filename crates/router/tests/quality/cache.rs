//! An engine's KV blocks by name; what was used least recently is evicted.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use forebay_tokens::{CacheGroup, KvEvent, RoutingHash, Tier};

pub(crate) struct Cache {
    blocks: usize,
    /// Blocks that leases have and that have no name.
    unnamed: usize,
    named: HashMap<RoutingHash, Named>,
    /// Named blocks that no lease has, by their last use.
    idle: BTreeMap<u64, RoutingHash>,
    clock: u64,
    events: Vec<KvEvent>,
}

struct Named {
    users: usize,
    last_use: u64,
}

/// The blocks of one request.
#[derive(Default)]
pub(crate) struct Lease {
    pub(crate) named: Vec<RoutingHash>,
    unnamed: usize,
}

impl Cache {
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            blocks,
            unnamed: 0,
            named: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
            events: Vec::new(),
        }
    }

    /// Takes `blocks` blocks, as many as there are of those that start `chain` among them.
    pub(crate) fn take(&mut self, chain: &[RoutingHash], blocks: usize) -> Option<Lease> {
        let is_there = |hash: &&RoutingHash| self.named.contains_key(hash);
        let named: Vec<_> = chain.iter().take_while(is_there).copied().collect();
        let idle = named
            .iter()
            .filter(|hash| self.named[hash].users == 0)
            .count();
        let unnamed = blocks - named.len();
        let in_use = self.unnamed + self.named.len() - self.idle.len();
        if in_use + idle + unnamed > self.blocks {
            return None;
        }
        for hash in &named {
            let block = self.named.get_mut(hash).expect("it is there");
            if block.users == 0 {
                self.idle.remove(&block.last_use);
            }
            block.users += 1;
        }
        self.unnamed += unnamed;
        self.evict();
        Some(Lease { named, unnamed })
    }

    /// The blocks of `chain` are computed and can be found. Those that another request named
    /// first the lease keeps as its own copies.
    pub(crate) fn name(&mut self, lease: &mut Lease, chain: &[RoutingHash]) {
        let mut blocks = Vec::new();
        for hash in &chain[lease.named.len()..] {
            if let Entry::Vacant(entry) = self.named.entry(*hash) {
                entry.insert(Named {
                    users: 1,
                    last_use: 0,
                });
                blocks.push(*hash);
            }
        }
        self.unnamed -= blocks.len();
        lease.unnamed -= blocks.len();
        lease.named.extend(&blocks);
        if !blocks.is_empty() {
            self.events.push(KvEvent::Stored {
                tier: Tier::G1,
                group: CacheGroup(0),
                parent: None,
                blocks,
            });
        }
    }

    pub(crate) fn give_back(&mut self, lease: Lease) {
        self.unnamed -= lease.unnamed;
        // The end of a prefix goes before its start.
        for hash in lease.named.iter().rev() {
            let block = self.named.get_mut(hash).expect("what is in use stays");
            block.users -= 1;
            if block.users == 0 {
                self.clock += 1;
                block.last_use = self.clock;
                self.idle.insert(self.clock, *hash);
            }
        }
    }

    pub(crate) fn take_events(&mut self) -> Vec<KvEvent> {
        std::mem::take(&mut self.events)
    }

    fn evict(&mut self) {
        let mut blocks = Vec::new();
        while self.unnamed + self.named.len() > self.blocks {
            let (_, hash) = self.idle.pop_first().expect("what is in use fits");
            self.named.remove(&hash);
            blocks.push(hash);
        }
        if !blocks.is_empty() {
            self.events.push(KvEvent::Removed {
                tier: Tier::G1,
                group: CacheGroup(0),
                blocks,
            });
        }
    }
}
