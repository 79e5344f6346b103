//! Hot paths of the router: what a request and a KV event pay.

use forebay_router::{
    BookingId, FlatIndex, OwnerId, PrefixIndex, Request, Router, RouterConfig, Selector,
    WorkerRank, WorkerSpec,
};
use forebay_testkit::instructions::{self, measured};
use forebay_tokens::{BlockSize, CacheGroup, KvEvent, RoutingHash, Tier, WorkerId};

/// Prompts with a prefix in common, 64 blocks long.
const BLOCKS: u64 = 64;
const SHARED: u64 = 16;

/// Of `prompt`, as scattered as real ones.
fn chain(prompt: u64) -> Vec<RoutingHash> {
    let hash = |n: u64| {
        let prompt = if n < SHARED { 0 } else { prompt };
        RoutingHash((prompt << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    };
    (0..BLOCKS).map(hash).collect()
}

fn stored(blocks: Vec<RoutingHash>) -> KvEvent {
    KvEvent::Stored {
        tier: Tier::G1,
        group: CacheGroup(0),
        parent: None,
        blocks,
    }
}

fn worker(n: u64) -> WorkerRank {
    WorkerId(n).into()
}

/// 64 workers, each with 8 prompts of its own.
fn index() -> FlatIndex {
    let mut index = FlatIndex::new(usize::MAX);
    for at in 0..64 {
        for prompt in 0..8 {
            index.apply(worker(at), &stored(chain(1 + at * 8 + prompt)));
        }
    }
    index
}

fn matches_hit() {
    let (index, chain) = (index(), chain(100));
    let found = measured(|| index.matches(&chain));
    assert_eq!(found.len(), 64);
}

fn matches_miss() {
    let index = index();
    let mut chain = chain(100);
    chain.rotate_left(1);
    chain[0].0 += 1;
    let found = measured(|| index.matches(&chain));
    assert_eq!(found, []);
}

/// 64 blocks that nobody has, in four events.
fn apply_stored() {
    let mut index = index();
    let events = chain(1_000_000);
    let events: Vec<_> = (events.chunks(16))
        .map(|blocks| stored(blocks.to_vec()))
        .collect();
    measured(|| {
        for event in &events {
            index.apply(worker(5), event);
        }
    });
}

/// The same blocks again, and gone.
fn apply_removed() {
    let mut index = index();
    let blocks = chain(1_000_000);
    index.apply(worker(5), &stored(blocks.clone()));
    let events: Vec<_> = (blocks.chunks(16))
        .map(|blocks| KvEvent::Removed {
            tier: Tier::G1,
            group: CacheGroup(0),
            blocks: blocks.to_vec(),
        })
        .collect();
    measured(|| {
        for event in &events {
            index.apply(worker(5), event);
        }
    });
}

/// One request of 32 blocks, from its reservation to its end, among workers that have 6 requests
/// each; four of them have half of the prompt.
fn request(workers: u64) {
    let block_size = BlockSize::new(16).expect("16 is a block size");
    let mut router = Router::new(RouterConfig::default(), block_size).expect("it is valid");
    for at in 0..workers {
        router.add_worker(worker(at), WorkerSpec::default());
        for n in 0..6 {
            let chain = chain(1 + at * 8 + n);
            let request = Request {
                target: Some(worker(at)),
                ..Request::new(&chain[SHARED as usize..], 16 * (BLOCKS - SHARED))
            };
            let id = BookingId::new(OwnerId(1), at * 8 + n);
            (router.reserve(&request, id, 0)).expect("it is there");
        }
    }
    let chain = chain(1_000_000);
    let chain = &chain[..32];
    for at in 0..4 {
        router.apply(worker(at), &stored(chain[..16].to_vec()));
    }
    let id = BookingId::new(OwnerId(2), 0);
    let request = Request::new(chain, 16 * 32 + 5);
    let decision = measured(|| {
        let decision = router.reserve(&request, id, 7);
        router.first_token(id);
        router.release(id);
        decision
    });
    assert_eq!(decision.map(|decision| decision.overlap.blocks()), Ok(16));
}

fn main() {
    instructions::main(&[
        ("matches_64_hit_64_workers", matches_hit),
        ("matches_64_miss_64_workers", matches_miss),
        ("apply_stored_64", apply_stored),
        ("apply_removed_64", apply_removed),
        ("request_8_workers", || request(8)),
        ("request_64_workers", || request(64)),
        ("request_1024_workers", || request(1024)),
    ]);
}
