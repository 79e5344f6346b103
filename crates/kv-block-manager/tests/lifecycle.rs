//! What holders of blocks can rely on.
#![allow(clippy::unwrap_used)]

use forebay_kv_block_manager::{
    BlockPool, ConfigError, Demand, GroupConfig, GroupSpec, GroupStats, MutableBlock,
    NotEnoughBlocks, PoolConfig, RegisteredBlock, WeakBlock,
};
use forebay_tokens::{
    BlockChain, BlockId, BlockIdentity, BlockSize, CacheGroup, ContentKey, ContentNamespace,
    KvEvent, RoutingHash, RoutingSeed, Tier, TokenId,
};

const GROUP: CacheGroup = CacheGroup(0);

/// Two blocks with one routing hash, 0x075a004c1779538c.
const COLLIDING: [[TokenId; 16]; 2] = [
    [
        1009, 1029, 1032, 1056, 1077, 1092, 1109, 1117, 1136, 1148, 1160, 1189, 1195, 1214, 1236,
        1252,
    ],
    [
        1002, 1028, 1038, 1050, 1064, 1091, 1098, 1120, 1135, 1155, 1160, 1185, 1206, 1217, 1236,
        1254,
    ],
];

fn pool(n_blocks: u32, block_size: u32) -> BlockPool {
    let block_size = BlockSize::new(block_size).unwrap();
    BlockPool::new(PoolConfig::full_attention(n_blocks, block_size)).unwrap()
}

fn chain(block_size: u32, tokens: &[TokenId]) -> Vec<BlockIdentity> {
    let namespace = ContentNamespace::new(&ContentKey::new([1; 32]), b"model", b"");
    let block_size = BlockSize::new(block_size).unwrap();
    let mut chain = BlockChain::new(namespace, RoutingSeed::default(), block_size);
    chain.extend(tokens);
    chain.identities().to_vec()
}

fn routing(chain: &[BlockIdentity]) -> Vec<RoutingHash> {
    chain.iter().map(|block| block.routing).collect()
}

/// Fills and registers a whole chain.
fn store(pool: &BlockPool, chain: &[BlockIdentity]) -> Vec<RegisteredBlock> {
    let blocks = pool.allocate(GROUP, chain.len()).unwrap();
    let register = |(i, block): (usize, MutableBlock)| block.complete(&chain[..=i]).register();
    blocks.into_iter().enumerate().map(register).collect()
}

fn counts(pool: &BlockPool) -> (usize, usize, usize) {
    let GroupStats {
        total,
        free,
        cached,
        active,
        ..
    } = pool.stats(GROUP);
    assert_eq!(free + cached + active, total);
    (free, cached, active)
}

fn stored(parent: Option<RoutingHash>, blocks: &[BlockIdentity]) -> KvEvent {
    KvEvent::Stored {
        tier: Tier::G1,
        group: GROUP,
        parent,
        blocks: routing(blocks),
    }
}

fn removed(blocks: &[BlockIdentity]) -> KvEvent {
    KvEvent::Removed {
        tier: Tier::G1,
        group: GROUP,
        blocks: routing(blocks),
    }
}

#[test]
fn a_dropped_guard_returns_its_block() {
    let pool = pool(4, 2);
    let names = chain(2, &[1, 2, 3, 4]);
    let mut blocks = pool.allocate(GROUP, 3).unwrap();
    assert_eq!(counts(&pool), (1, 0, 3));

    drop(blocks.pop());
    assert_eq!(counts(&pool), (2, 0, 2), "a mutable block is free again");
    drop(blocks.pop().unwrap().complete(&names[..1]));
    assert_eq!(counts(&pool), (3, 0, 1), "a complete block is free again");

    let registered = blocks.pop().unwrap().complete(&names[..1]).register();
    let second = registered.clone();
    drop(registered);
    assert_eq!(counts(&pool), (3, 0, 1), "it has another user");
    drop(second);
    assert_eq!(counts(&pool), (3, 1, 0), "a registered block stays cached");
}

#[test]
fn allocation_is_all_or_nothing() {
    let pool = pool(4, 2);
    drop(store(&pool, &chain(2, &[1, 2, 3, 4])));
    let held = pool.allocate(GROUP, 1).unwrap();
    assert_eq!(counts(&pool), (1, 2, 1));

    let refused = NotEnoughBlocks {
        group: GROUP,
        wanted: 4,
        free: 1,
        evictable: 2,
    };
    assert_eq!(pool.allocate(GROUP, 4).unwrap_err(), refused);
    assert_eq!(counts(&pool), (1, 2, 1));

    let rest = pool.allocate(GROUP, 3).unwrap();
    assert_eq!(counts(&pool), (0, 0, 4));
    drop((held, rest));
    assert_eq!(counts(&pool), (4, 0, 0));
}

#[test]
fn a_prefix_is_matched_up_to_the_first_gap() {
    let pool = pool(8, 2);
    let names = chain(2, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let _blocks = store(&pool, &names[..3]);
    let other = chain(2, &[1, 2, 3, 9, 5, 6]);

    assert_eq!(pool.match_prefix(GROUP, &names).n_blocks, 3);
    assert_eq!(pool.match_prefix(GROUP, &names[..2]).n_blocks, 2);
    assert_eq!(pool.match_prefix(GROUP, &other).n_blocks, 1);
    assert_eq!(pool.match_prefix(GROUP, &names[1..]).n_blocks, 2);
    assert_eq!(pool.match_prefix(GROUP, &[]).n_blocks, 0);

    let stats = pool.stats(GROUP);
    assert_eq!((stats.asked_blocks, stats.hit_blocks), (12, 8));
    assert_eq!(pool.prefix_len(GROUP, &names), 3);
    assert_eq!(pool.stats(GROUP), stats, "a look changes nothing");
}

#[test]
fn content_that_is_known_already_is_kept_once() {
    let pool = pool(4, 2);
    let names = chain(2, &[1, 2]);
    let first = store(&pool, &names);
    let second = store(&pool, &names);
    assert_eq!(second[0].id(), first[0].id());
    assert_eq!(counts(&pool), (3, 0, 1));
    assert_eq!(pool.take_events(), [stored(None, &names)]);

    drop(first);
    assert_eq!(counts(&pool), (3, 0, 1), "both were users of it");
    drop(second);

    // The same with the known one unused.
    drop(store(&pool, &names));
    assert_eq!(counts(&pool), (3, 1, 0));
}

#[test]
fn the_longest_unused_goes_first_and_a_prefix_outlives_its_end() {
    let pool = pool(6, 2);
    let old = chain(2, &[1, 2, 3, 4, 5, 6]);
    let new = chain(2, &[7, 8, 9, 10, 11, 12]);
    drop(store(&pool, &old));
    drop(store(&pool, &new));
    assert_eq!(counts(&pool), (0, 6, 0));

    // Using the old one makes it the newer.
    drop(pool.match_prefix(GROUP, &old));
    let two = pool.allocate(GROUP, 2).unwrap();
    assert_eq!(pool.prefix_len(GROUP, &new), 1);
    assert_eq!(pool.prefix_len(GROUP, &old), 3);
    let three = pool.allocate(GROUP, 2).unwrap();
    assert_eq!(pool.prefix_len(GROUP, &new), 0);
    assert_eq!(pool.prefix_len(GROUP, &old), 2);
    assert_eq!(pool.stats(GROUP).evicted_blocks, 4);
    drop((two, three));
}

#[test]
fn what_is_matched_is_not_evicted_for_the_rest() {
    let pool = pool(4, 2);
    let names = chain(2, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    drop(store(&pool, &names[..2]));
    let demand = |n_blocks, n_spare| Demand {
        prefix: &names,
        n_blocks,
        n_spare,
    };

    let refused = pool.acquire(GROUP, demand(5, 0)).unwrap_err();
    assert_eq!(
        (refused.wanted, refused.free, refused.evictable),
        (3, 2, 0),
        "the two cached blocks are wanted themselves"
    );
    let refused = pool.acquire(GROUP, demand(4, 1)).unwrap_err();
    assert_eq!((refused.wanted, refused.free), (3, 2), "one was to be left");
    assert_eq!(counts(&pool), (2, 2, 0));
    assert_eq!(pool.stats(GROUP).hit_blocks, 0, "a refusal is no hit");

    let got = pool.acquire(GROUP, demand(4, 0)).unwrap();
    assert_eq!((got.matched.n_blocks, got.fresh.len()), (2, 2));
    assert_eq!(got.matched.blocks[1].identity(), names[1]);
    assert_eq!(counts(&pool), (0, 0, 4));
}

#[test]
fn a_weak_block_follows_the_content() {
    let pool = pool(2, 2);
    let names = chain(2, &[1, 2]);
    let block = store(&pool, &names).remove(0);
    let weak: WeakBlock = block.downgrade();
    drop(block);
    assert_eq!(counts(&pool), (1, 1, 0), "it keeps nothing in use");
    assert_eq!(weak.upgrade().unwrap().identity(), names[0]);

    let all = pool.allocate(GROUP, 2).unwrap();
    assert!(weak.upgrade().is_none(), "evicted");
    drop(all);
    let again = store(&pool, &names);
    assert_eq!(weak.upgrade().unwrap().id(), again[0].id());

    drop((again, pool));
    assert!(weak.upgrade().is_none(), "the pool is gone");
}

#[test]
fn contents_that_collide_in_their_routing_hash_are_two_blocks_and_one_event() {
    let pool = pool(2, 16);
    let [a, b] = COLLIDING.map(|tokens| chain(16, &tokens));
    assert_eq!(a[0].routing, RoutingHash(0x075a_004c_1779_538c));
    assert_eq!(a[0].routing, b[0].routing);
    assert_ne!(a[0].content, b[0].content);

    let (first, second) = (store(&pool, &a), store(&pool, &b));
    assert_ne!(first[0].id(), second[0].id());
    let matched = pool.match_prefix(GROUP, &b);
    assert_eq!(matched.blocks[0].id(), second[0].id());
    assert_eq!(pool.take_events(), [stored(None, &a)]);

    drop((first, second, matched));
    let one = pool.allocate(GROUP, 1).unwrap();
    assert_eq!(pool.take_events(), [], "one of them is still there");
    let two = pool.allocate(GROUP, 1).unwrap();
    assert_eq!(pool.take_events(), [removed(&a)]);
    drop((one, two));
}

#[test]
fn events_name_chains_in_one_piece() {
    let pool = pool(5, 2);
    let names = chain(2, &[1, 2, 3, 4, 5, 6]);
    let fork = chain(2, &[1, 2, 9, 9]);
    let mut blocks = store(&pool, &names);
    blocks.extend(store(&pool, &fork));
    assert_eq!(
        pool.take_events(),
        [
            stored(None, &names),
            stored(Some(names[0].routing), &fork[1..]),
        ]
    );
    assert_eq!(pool.take_events(), []);

    drop(blocks);
    let all = pool.allocate(GROUP, 5).unwrap();
    let [KvEvent::Removed { blocks, .. }] = &pool.take_events()[..] else {
        panic!("evictions in a row are one event");
    };
    assert_eq!((blocks.len(), blocks[0]), (4, names[2].routing));
    drop(all);
}

#[test]
fn clearing_keeps_what_is_in_use() {
    let pool = pool(4, 2);
    let names = chain(2, &[1, 2, 3, 4, 5, 6]);
    let mut blocks = store(&pool, &names);
    blocks.pop();
    pool.clear();
    assert_eq!(counts(&pool), (2, 0, 2));
    assert_eq!(
        pool.take_events(),
        [
            KvEvent::Cleared { tier: Tier::G1 },
            stored(None, &names[..2])
        ]
    );
    drop(blocks);
    pool.clear();
    assert_eq!(counts(&pool), (4, 0, 0));
    assert_eq!(pool.take_events(), [KvEvent::Cleared { tier: Tier::G1 }]);
    assert_eq!(pool.prefix_len(GROUP, &names), 0);
}

#[test]
fn events_that_nobody_takes_become_the_present_state() {
    let pool = pool(2, 2);
    let kept = store(&pool, &chain(2, &[1, 1]));
    for token in 2..100 {
        drop(store(&pool, &chain(2, &[token, token])));
    }
    let events = pool.take_events();
    assert!(events.len() <= 1 + 2 * 2, "{events:?}");
    assert_eq!(events[0], KvEvent::Cleared { tier: Tier::G1 });
    assert_eq!(events[1], stored(None, &chain(2, &[1, 1])));
    assert_eq!(kept.len(), 1);
    assert_eq!(pool.snapshot().len(), 2);
}

#[test]
fn events_never_name_more_than_two_hashes_a_block() {
    let pool = pool(1, 2);
    let [first, second] = [chain(2, &[1, 1]), chain(2, &[2, 2])];
    drop(store(&pool, &first));
    drop(store(&pool, &second));
    let cleared = KvEvent::Cleared { tier: Tier::G1 };
    assert_eq!(pool.take_events(), [cleared, stored(None, &second)]);
}

#[test]
fn a_snapshot_names_parents_first() {
    let pool = pool(8, 2);
    let names = chain(2, &[1, 2, 3, 4, 5, 6]);
    let fork = chain(2, &[1, 2, 3, 4, 9, 9, 8, 8]);
    let _blocks = (store(&pool, &names), store(&pool, &fork));
    let snapshot = pool.snapshot();
    assert_eq!(snapshot.len(), 2);
    let mut known = vec![];
    for event in snapshot {
        let KvEvent::Stored { parent, blocks, .. } = event else {
            panic!("only what is there");
        };
        assert!(parent.is_none_or(|parent| known.contains(&parent)));
        known.extend(blocks);
    }
    assert_eq!(known.len(), 5);
}

#[test]
fn groups_have_their_own_blocks_sizes_and_rules() {
    let size = |n| BlockSize::new(n).unwrap();
    let group = |spec, n_blocks| GroupConfig { spec, n_blocks };
    let pool = BlockPool::new(PoolConfig {
        tier: Tier::G2,
        groups: vec![
            group(GroupSpec::full_attention(size(2)), 4),
            group(GroupSpec::sliding_window(size(2), 4), 6),
            group(GroupSpec::state_space(size(4)), 2),
        ],
    })
    .unwrap();
    let [full, window, state] = [CacheGroup(0), CacheGroup(1), CacheGroup(2)];
    let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let names = chain(2, &tokens);
    let fill = |group, names: &[BlockIdentity], wanted: &[usize]| -> Vec<RegisteredBlock> {
        let blocks = pool.allocate(group, wanted.len()).unwrap();
        let pairs = wanted.iter().zip(blocks);
        pairs
            .map(|(i, block)| block.complete(&names[..=*i]).register())
            .collect()
    };

    // With two of four tokens in the last block and the next token itself, a window of 4 needs the
    // last two blocks.
    let _window = fill(window, &names, &[0, 1, 3, 4]);
    let matched = pool.match_prefix(window, &names);
    assert_eq!(matched.n_blocks, 5);
    let held: Vec<_> = matched.blocks.iter().map(|b| b.identity()).collect();
    assert_eq!(held, names[3..5]);
    assert_eq!(pool.prefix_len(window, &names[..4]), 2);
    assert_eq!(pool.prefix_len(full, &names), 0);

    // A state stands for everything before it.
    let states = chain(4, &tokens);
    let _state = fill(state, &states, &[1]);
    let matched = pool.match_prefix(state, &states);
    assert_eq!((matched.n_blocks, matched.blocks.len()), (2, 1));

    assert_eq!(pool.stats(full).free, 4);
    assert_eq!(pool.allocate(state, 2).unwrap_err().group, state);
    let groups: Vec<_> = pool
        .take_events()
        .iter()
        .map(|event| match event {
            KvEvent::Stored { tier, group, .. } => (*tier, *group),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        groups,
        [(Tier::G2, window), (Tier::G2, window), (Tier::G2, state)]
    );
}

#[test]
fn a_pool_of_nothing_is_refused() {
    let groups = |groups| PoolConfig {
        tier: Tier::G1,
        groups,
    };
    let spec = GroupSpec::full_attention(BlockSize::new(16).unwrap());
    assert_eq!(
        BlockPool::new(groups(vec![])).unwrap_err(),
        ConfigError::Groups(0)
    );
    let full = GroupConfig { spec, n_blocks: 1 };
    let empty = GroupConfig { spec, n_blocks: 0 };
    assert_eq!(
        BlockPool::new(groups(vec![full, empty])).unwrap_err(),
        ConfigError::NoBlocks { group: 1 }
    );
}

#[test]
fn ids_are_given_out_in_order_and_guards_cross_threads() {
    let pool = pool(64, 2);
    let blocks = pool.allocate(GROUP, 2).unwrap();
    assert_eq!((blocks[0].id(), blocks[1].id()), (BlockId(0), BlockId(1)));
    drop(blocks);

    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..50 {
                    let names = chain(2, &[1, 2, 3, 4, thread, round]);
                    let held = store(pool, &names);
                    let matched = pool.match_prefix(GROUP, &names);
                    assert_eq!(matched.n_blocks, 3);
                    assert_eq!(matched.blocks[2].id(), held[2].id());
                }
            });
        }
    });
    assert_eq!(pool.stats(GROUP).active, 0);
}
