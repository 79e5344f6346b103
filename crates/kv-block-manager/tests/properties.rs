//! Random use of a pool, against books kept the slow way.
#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use forebay_kv_block_manager::{BlockPool, Demand, MutableBlock, PoolConfig, RegisteredBlock};
use forebay_tokens::{
    BlockChain, BlockId, BlockIdentity, BlockSize, CacheGroup, ContentId, ContentKey,
    ContentNamespace, KvEvent, RoutingHash, RoutingSeed, TokenId,
};
use proptest::collection::vec;
use proptest::prelude::*;

const GROUP: CacheGroup = CacheGroup(0);
const N_BLOCKS: usize = 7;

#[derive(Clone, Debug)]
enum Op {
    Allocate {
        n: usize,
    },
    Acquire {
        chain: usize,
        len: usize,
        n: usize,
        spare: usize,
    },
    Register {
        held: usize,
        chain: usize,
        len: usize,
    },
    Share {
        user: usize,
    },
    DropHeld {
        held: usize,
    },
    DropUser {
        user: usize,
    },
    DropAllUsers,
    Get {
        chain: usize,
        len: usize,
    },
    Clear,
    TakeEvents,
}

fn op() -> impl Strategy<Value = Op> {
    let chain = 0..4usize;
    let len = 1..=3usize;
    prop_oneof![
        2 => (0..4usize).prop_map(|n| Op::Allocate { n }),
        3 => (chain.clone(), len.clone(), 0..5usize, 0..2usize)
            .prop_map(|(chain, len, n, spare)| Op::Acquire { chain, len, n, spare }),
        6 => (any::<usize>(), chain.clone(), len.clone())
            .prop_map(|(held, chain, len)| Op::Register { held, chain, len }),
        1 => any::<usize>().prop_map(|user| Op::Share { user }),
        2 => any::<usize>().prop_map(|held| Op::DropHeld { held }),
        4 => any::<usize>().prop_map(|user| Op::DropUser { user }),
        1 => Just(Op::DropAllUsers),
        1 => (chain, len).prop_map(|(chain, len)| Op::Get { chain, len }),
        1 => Just(Op::Clear),
        2 => Just(Op::TakeEvents),
    ]
}

/// Four chains of three blocks: two collide in every routing hash, one shares a start with the
/// first, one is alone.
fn chains() -> Vec<Vec<BlockIdentity>> {
    let a: Vec<TokenId> = vec![
        1009, 1029, 1032, 1056, 1077, 1092, 1109, 1117, 1136, 1148, 1160, 1189, 1195, 1214, 1236,
        1252,
    ];
    let b: Vec<TokenId> = vec![
        1002, 1028, 1038, 1050, 1064, 1091, 1098, 1120, 1135, 1155, 1160, 1185, 1206, 1217, 1236,
        1254,
    ];
    let [x, y] = [vec![1; 16], vec![2; 16]];
    let namespace = ContentNamespace::new(&ContentKey::new([1; 32]), b"model", b"");
    [[&a, &x, &y], [&b, &x, &y], [&a, &y, &x], [&x, &x, &x]]
        .map(|blocks| {
            let size = BlockSize::new(16).unwrap();
            let mut chain = BlockChain::new(namespace, RoutingSeed::default(), size);
            blocks.iter().for_each(|block| chain.extend(block));
            chain.identities().to_vec()
        })
        .to_vec()
}

/// The books kept the slow way, by content.
#[derive(Default)]
struct Model {
    registered: HashMap<ContentId, Entry>,
    clock: u64,
}

struct Entry {
    id: BlockId,
    routing: RoutingHash,
    depth: usize,
    users: usize,
    released: u64,
}

impl Model {
    fn n_cached(&self) -> usize {
        self.registered.values().filter(|e| e.users == 0).count()
    }

    fn n_free(&self, n_held: usize) -> usize {
        N_BLOCKS - n_held - self.registered.len()
    }

    fn prefix_len(&self, chain: &[BlockIdentity]) -> usize {
        let known = |block: &&BlockIdentity| self.registered.contains_key(&block.content);
        chain.iter().take_while(known).count()
    }

    fn release(&mut self, block: &RegisteredBlock) {
        let entry = self.registered.get_mut(&block.identity().content).unwrap();
        assert_eq!(entry.id, block.id());
        entry.users -= 1;
        entry.released = self.clock;
    }

    /// Takes `prefix` into use and makes room for `n` more blocks.
    fn acquire(&mut self, prefix: &[BlockIdentity], n: usize, n_held: usize) {
        self.clock += 1;
        for block in prefix {
            self.registered.get_mut(&block.content).unwrap().users += 1;
        }
        for _ in self.n_free(n_held)..n {
            let (content, _) = self
                .registered
                .iter()
                .filter(|(_, e)| e.users == 0)
                .min_by_key(|(_, e)| (e.released, Reverse(e.depth), e.id))
                .unwrap();
            let content = *content;
            self.registered.remove(&content);
        }
    }

    fn routing_hashes(&self) -> HashSet<RoutingHash> {
        self.registered.values().map(|e| e.routing).collect()
    }
}

/// What an observer knows who applies every event.
fn apply(known: &mut HashSet<RoutingHash>, events: Vec<KvEvent>) {
    let n_hashes = |event: &KvEvent| match event {
        KvEvent::Stored { blocks, .. } | KvEvent::Removed { blocks, .. } => blocks.len(),
        KvEvent::Cleared { .. } => 0,
    };
    assert!(events.iter().map(n_hashes).sum::<usize>() <= 2 * N_BLOCKS);
    for event in events {
        match event {
            KvEvent::Stored { blocks, .. } => {
                assert!(!blocks.is_empty());
                for block in blocks {
                    assert!(known.insert(block), "stored twice");
                }
            }
            KvEvent::Removed { blocks, .. } => {
                assert!(!blocks.is_empty());
                for block in blocks {
                    assert!(known.remove(&block), "removed but not there");
                }
            }
            KvEvent::Cleared { .. } => known.clear(),
        }
    }
}

fn run(ops: Vec<Op>) {
    let size = BlockSize::new(16).unwrap();
    let pool = BlockPool::new(PoolConfig::full_attention(N_BLOCKS as u32, size)).unwrap();
    let chains = chains();
    let mut model = Model::default();
    let mut held: Vec<MutableBlock> = vec![];
    let mut users: Vec<RegisteredBlock> = vec![];
    let mut known = HashSet::new();

    for op in ops {
        match op {
            Op::Allocate { n } => {
                let fits = n <= model.n_free(held.len()) + model.n_cached();
                match pool.allocate(GROUP, n) {
                    Ok(blocks) => {
                        assert!(fits);
                        model.acquire(&[], n, held.len());
                        held.extend(blocks);
                    }
                    Err(refused) => {
                        assert!(!fits);
                        assert_eq!(refused.free, model.n_free(held.len()));
                        assert_eq!(refused.evictable, model.n_cached());
                    }
                }
            }
            Op::Acquire {
                chain,
                len,
                n,
                spare,
            } => {
                let prefix = &chains[chain][..len];
                let matched = &prefix[..model.prefix_len(prefix)];
                let n_fresh = n.saturating_sub(matched.len());
                let unused = |b: &&BlockIdentity| model.registered[&b.content].users == 0;
                let revived = matched.iter().filter(unused).count();
                let available = model.n_free(held.len()) + model.n_cached() - revived;
                let demand = Demand {
                    prefix,
                    n_blocks: n,
                    n_spare: spare,
                };
                match pool.acquire(GROUP, demand) {
                    Ok(got) => {
                        assert!(n_fresh + spare <= available);
                        assert_eq!(got.matched.n_blocks, matched.len());
                        let names = got.matched.blocks.iter().map(|b| b.identity());
                        assert!(names.eq(matched.iter().copied()));
                        assert_eq!(got.fresh.len(), n_fresh);
                        model.acquire(matched, n_fresh, held.len());
                        users.extend(got.matched.blocks);
                        held.extend(got.fresh);
                    }
                    Err(_) => assert!(n_fresh + spare > available),
                }
            }
            Op::Register {
                held: at,
                chain,
                len,
            } if !held.is_empty() => {
                let block = held.swap_remove(at % held.len());
                let id = block.id();
                let chain = &chains[chain][..len];
                let name = chain[len - 1];
                let registered = block.complete(chain).register();
                let entry = model.registered.entry(name.content).or_insert(Entry {
                    id,
                    routing: name.routing,
                    depth: len - 1,
                    users: 0,
                    released: 0,
                });
                entry.users += 1;
                assert_eq!(registered.id(), entry.id);
                assert_eq!(registered.identity(), name);
                users.push(registered);
            }
            Op::Share { user } if !users.is_empty() => {
                let block = users[user % users.len()].clone();
                let entry = model.registered.get_mut(&block.identity().content);
                entry.unwrap().users += 1;
                users.push(block);
            }
            Op::DropHeld { held: at } if !held.is_empty() => {
                held.swap_remove(at % held.len());
            }
            Op::DropUser { user } if !users.is_empty() => {
                let block = users.swap_remove(user % users.len());
                model.release(&block);
            }
            Op::DropAllUsers => users.drain(..).for_each(|block| model.release(&block)),
            Op::Get { chain, len } => {
                let name = chains[chain][len - 1];
                let block = pool.get(GROUP, &name.content);
                let entry = model.registered.get_mut(&name.content);
                assert_eq!(
                    block.as_ref().map(RegisteredBlock::id),
                    entry.as_ref().map(|e| e.id)
                );
                if let Some(entry) = entry {
                    entry.users += 1;
                }
                users.extend(block);
            }
            Op::Clear => {
                pool.clear();
                model.registered.retain(|_, e| e.users > 0);
            }
            Op::TakeEvents => apply(&mut known, pool.take_events()),
            _ => {}
        }

        let stats = pool.stats(GROUP);
        assert_eq!(stats.total, N_BLOCKS);
        assert_eq!(stats.free, model.n_free(held.len()));
        assert_eq!(stats.cached, model.n_cached());
        assert_eq!(stats.active, N_BLOCKS - stats.free - stats.cached);

        // A block has one content, and a block being filled is nobody else's.
        let filled: BTreeSet<BlockId> = held.iter().map(MutableBlock::id).collect();
        assert_eq!(filled.len(), held.len());
        assert!(model.registered.values().all(|e| !filled.contains(&e.id)));
        for user in &users {
            assert_eq!(model.registered[&user.identity().content].id, user.id());
        }
        for chain in &chains {
            assert_eq!(pool.prefix_len(GROUP, chain), model.prefix_len(chain));
        }
        let mut seen = HashSet::new();
        apply(&mut seen, pool.snapshot());
        assert_eq!(seen, model.routing_hashes());
    }

    apply(&mut known, pool.take_events());
    assert_eq!(known, model.routing_hashes());
    drop((held, users));
    assert_eq!(pool.stats(GROUP).active, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pool_keeps_its_books(ops in vec(op(), 1..80)) {
        run(ops);
    }
}
