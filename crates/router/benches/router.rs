//! How long the router takes: nanoseconds, median and range of seven repeats.
//!
//! `cargo bench -p forebay-router --bench router [-- BLOCKS]`: BLOCKS distinct blocks in the
//! index, 1,000,000 if not given. Lookups go over 10,000 different prompts in turn, so that they
//! find little of the index in the processor's caches.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use forebay_router::{
    BookingId, FlatIndex, OwnerId, PrefixIndex, Request, Router, RouterConfig, Selector,
    WorkerRank, WorkerSpec,
};
use forebay_tokens::{BlockSize, CacheGroup, KvEvent, RoutingHash, Tier, WorkerId};

const WORKERS: u64 = 64;
const BLOCKS: u64 = 64;
const QUERIES: u64 = 10_000;

fn main() {
    let argument = std::env::args().skip(1).find_map(|text| text.parse().ok());
    let prompts = argument.unwrap_or(1_000_000_u64) / BLOCKS;
    println!("{:<48}{:>9}{:>9}{:>9}", "case", "median", "least", "most");

    let mut index = FlatIndex::new(usize::MAX);
    let empty_bytes = index.size_bytes();
    let events: Vec<Vec<KvEvent>> = (0..prompts)
        .map(|prompt| stored(&chain(prompt, BLOCKS)))
        .collect();
    let begin = Instant::now();
    for (prompt, events) in (0..).zip(&events) {
        for event in events {
            index.apply(worker(prompt % WORKERS), event);
        }
    }
    let filled = begin.elapsed();
    let blocks = prompts * BLOCKS;
    one("apply a stored block, 16 an event", filled, blocks);

    let queries: Vec<_> = (0..QUERIES)
        .map(|n| chain(n * (prompts / QUERIES).max(1) % prompts, BLOCKS))
        .collect();
    let misses: Vec<_> = (0..QUERIES).map(|n| chain(prompts + n, BLOCKS)).collect();
    repeat(
        "look up 64 blocks, 1 of 64 workers has them",
        QUERIES,
        || queries.iter().map(|chain| index.matches(chain).len()).sum(),
    );
    repeat("look up one of them again and again", QUERIES, || {
        (0..QUERIES).map(|_| index.matches(&queries[0]).len()).sum()
    });
    repeat("look up 64 blocks that nobody has", QUERIES, || {
        misses.iter().map(|chain| index.matches(chain).len()).sum()
    });
    println!(
        "{:<48}{:>9}",
        "bytes a block",
        (index.size_bytes() - empty_bytes) as u64 / blocks
    );
    let begin = Instant::now();
    for (prompt, events) in (0..).zip(&events) {
        for event in events {
            let KvEvent::Stored {
                tier,
                group,
                blocks,
                ..
            } = event.clone()
            else {
                continue;
            };
            index.apply(
                worker(prompt % WORKERS),
                &KvEvent::Removed {
                    tier,
                    group,
                    blocks,
                },
            );
        }
    }
    one(
        "apply a removed block, 16 an event",
        begin.elapsed(),
        blocks,
    );
    drop(index);

    for workers in [8, 64, 1024] {
        let mut router = busy_router(workers);
        let name = format!("reserve to end, 32 blocks, {workers} workers");
        let chains: Vec<_> = (0..QUERIES).map(|n| chain(n, 32)).collect();
        repeat(&name, QUERIES, || {
            (0..)
                .zip(&chains)
                .map(|(n, chain)| {
                    let id = BookingId::new(OwnerId(2), n);
                    let request = Request::new(chain, 32 * 16 + 5);
                    let decision = router.reserve(&request, id, n);
                    router.first_token(id);
                    router.release(id);
                    decision.map_or(0, |decision| decision.at.worker.0 as usize)
                })
                .sum()
        });
    }
}

/// Workers with 32 requests of 32 blocks each; four of them have the first half of every prompt
/// that is to come.
fn busy_router(workers: u64) -> Router {
    let block_size = BlockSize::new(16).expect("16 is a block size");
    let mut router = Router::new(RouterConfig::default(), block_size).expect("it is valid");
    for at in 0..workers {
        router.add_worker(worker(at), WorkerSpec::default());
        for n in 0..32 {
            let chain = chain(1_000_000 + at * 32 + n, 32);
            let request = Request {
                target: Some(worker(at)),
                ..Request::new(&chain, 16 * 32)
            };
            let id = BookingId::new(OwnerId(1), at * 32 + n);
            (router.reserve(&request, id, 0)).expect("it is there");
            router.first_token(id);
        }
    }
    for prompt in 0..QUERIES {
        for event in stored(&chain(prompt, 16)) {
            for at in 0..4 {
                router.apply(worker(at), &event);
            }
        }
    }
    router
}

/// Hashes of a prompt's blocks, as scattered as real ones.
fn chain(prompt: u64, blocks: u64) -> Vec<RoutingHash> {
    let hash = |n: u64| {
        let n = (prompt << 16 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        RoutingHash((n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    };
    (0..blocks).map(hash).collect()
}

fn stored(chain: &[RoutingHash]) -> Vec<KvEvent> {
    let event = |blocks: &[RoutingHash]| KvEvent::Stored {
        tier: Tier::G1,
        group: CacheGroup(0),
        parent: None,
        blocks: blocks.to_vec(),
    };
    chain.chunks(16).map(event).collect()
}

fn worker(n: u64) -> WorkerRank {
    WorkerId(n).into()
}

fn one(name: &str, time: Duration, n: u64) {
    println!("{name:<48}{:>9}", time.as_nanos() as u64 / n);
}

fn repeat(name: &str, n: u64, mut run: impl FnMut() -> usize) {
    let mut nanos: Vec<u64> = (0..7)
        .map(|_| {
            let begin = Instant::now();
            black_box(run());
            begin.elapsed().as_nanos() as u64 / n
        })
        .collect();
    nanos.sort_unstable();
    println!("{name:<48}{:>9}{:>9}{:>9}", nanos[3], nanos[0], nanos[6]);
}
