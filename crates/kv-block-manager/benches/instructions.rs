//! Hot paths of the block pool: what admitting a sequence pays.

use forebay_kv_block_manager::{BlockPool, PoolConfig};
use forebay_testkit::instructions::{self, measured};
use forebay_tokens::{
    BlockChain, BlockSize, CacheGroup, ContentKey, ContentNamespace, RoutingSeed,
};

const GROUP: CacheGroup = CacheGroup(0);
const BLOCKS: u32 = 256;

fn pool() -> BlockPool {
    let config = PoolConfig::full_attention(BLOCKS, size());
    BlockPool::new(config).expect("the configuration is valid")
}

fn size() -> BlockSize {
    BlockSize::new(16).expect("16 is a block size")
}

/// A sequence whose full blocks fill the pool.
fn chain() -> BlockChain {
    let namespace = ContentNamespace::new(&ContentKey::new([7; 32]), b"model", b"tenant");
    let mut chain = BlockChain::new(namespace, RoutingSeed::default(), size());
    chain.extend(&(0..BLOCKS * 16).collect::<Vec<_>>());
    chain
}

fn register_all(pool: &BlockPool, chain: &BlockChain) {
    let blocks = pool
        .allocate(GROUP, BLOCKS as usize)
        .expect("the pool is that large");
    for (n, block) in (1..).zip(blocks) {
        block.complete(&chain.identities()[..n]).register();
    }
}

fn allocate_and_free() {
    let pool = pool();
    measured(|| {
        drop(
            pool.allocate(GROUP, BLOCKS as usize)
                .expect("the pool is that large"),
        )
    });
}

fn register() {
    let (pool, chain) = (pool(), chain());
    measured(|| register_all(&pool, &chain));
}

fn match_prefix() {
    let (pool, chain) = (pool(), chain());
    register_all(&pool, &chain);
    let matched = measured(|| pool.match_prefix(GROUP, chain.identities()));
    assert_eq!(matched.n_blocks, BLOCKS as usize);
}

fn evict() {
    let (pool, chain) = (pool(), chain());
    register_all(&pool, &chain);
    let blocks = measured(|| pool.allocate(GROUP, BLOCKS as usize));
    assert!(blocks.is_ok(), "cached blocks give way");
}

fn main() {
    instructions::main(&[
        ("allocate_and_free_256", allocate_and_free),
        ("register_256", register),
        ("match_prefix_256", match_prefix),
        ("evict_256", evict),
    ]);
}
