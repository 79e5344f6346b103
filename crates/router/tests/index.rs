//! The prefix index against a naive one, under whatever events there may be.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use forebay_router::{FlatIndex, Overlap, PrefixIndex, WorkerRank};
use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier, WorkerId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const TIERS: [Tier; 4] = [Tier::G1, Tier::G2, Tier::G3, Tier::G4];

/// How often each hash is at each place: the definition.
#[derive(Default)]
struct Naive(HashMap<(WorkerRank, Tier), BTreeMap<RoutingHash, u32>>);

impl Naive {
    fn apply(&mut self, at: WorkerRank, event: &KvEvent) {
        match event {
            KvEvent::Stored {
                tier,
                group: CacheGroup(0),
                blocks,
                ..
            } => {
                let place = self.0.entry((at, *tier)).or_default();
                for hash in blocks {
                    *place.entry(*hash).or_default() += 1;
                }
            }
            KvEvent::Removed {
                tier,
                group: CacheGroup(0),
                blocks,
            } => {
                let place = self.0.entry((at, *tier)).or_default();
                for hash in blocks {
                    match place.get_mut(hash) {
                        Some(1) => drop(place.remove(hash)),
                        Some(count) => *count -= 1,
                        None => {}
                    }
                }
            }
            KvEvent::Cleared { tier } => drop(self.0.remove(&(at, *tier))),
            _ => {}
        }
    }

    fn remove(&mut self, at: WorkerRank) {
        self.0.retain(|place, _| place.0 != at);
    }

    fn has(&self, at: WorkerRank, tier: Tier, hash: RoutingHash) -> bool {
        (self.0.get(&(at, tier))).is_some_and(|place| place.contains_key(&hash))
    }

    fn overlap(&self, at: WorkerRank, chain: &[RoutingHash]) -> Overlap {
        let mut overlap = Overlap::default();
        for hash in chain {
            match TIERS.iter().find(|tier| self.has(at, **tier, *hash)) {
                Some(tier) => overlap.add(*tier, 1),
                None => break,
            }
        }
        overlap
    }

    fn blocks_at(&self, at: WorkerRank) -> usize {
        let of_rank = self.0.iter().filter(|(place, _)| place.0 == at);
        of_rank.map(|(_, blocks)| blocks.len()).sum()
    }
}

fn rank(n: u32) -> WorkerRank {
    WorkerRank::new(WorkerId((n / 2).into()), DpRank(n % 2))
}

/// Hashes over a few shards of the index, several in each.
fn hash(n: u64) -> RoutingHash {
    RoutingHash((n % 3) << 62 | n)
}

fn hashes(n: usize) -> impl Strategy<Value = Vec<RoutingHash>> {
    vec((0..12_u64).prop_map(hash), 0..n)
}

#[derive(Clone, Debug)]
enum Step {
    Event(WorkerRank, KvEvent),
    Remove(WorkerRank),
    /// Enough events of no content for every void entry to be swept.
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tier = || select(&TIERS[..]);
    let group = || prop_oneof![4 => Just(CacheGroup(0)), 1 => Just(CacheGroup(1))];
    let stored = (tier(), group(), any::<bool>(), hashes(6)).prop_map(
        |(tier, group, has_parent, blocks)| KvEvent::Stored {
            tier,
            group,
            parent: has_parent.then(|| hash(99)),
            blocks,
        },
    );
    let removed = (tier(), group(), hashes(6)).prop_map(|(tier, group, blocks)| KvEvent::Removed {
        tier,
        group,
        blocks,
    });
    let cleared = tier().prop_map(|tier| KvEvent::Cleared { tier });
    let event = prop_oneof![8 => stored, 4 => removed, 1 => cleared];
    let rank = || (0..6_u32).prop_map(rank);
    let step = prop_oneof![
        20 => (rank(), event).prop_map(|(at, event)| Step::Event(at, event)),
        1 => rank().prop_map(Step::Remove),
        1 => Just(Step::Sweep),
    ];
    vec(step, 0..120)
}

fn run(steps: &[Step], index: &mut FlatIndex, mut after: impl FnMut(&FlatIndex, &Naive)) {
    let mut naive = Naive::default();
    let nothing = KvEvent::Removed {
        tier: Tier::G1,
        group: CacheGroup(0),
        blocks: Vec::new(),
    };
    for step in steps {
        match step {
            Step::Event(at, event) => {
                index.apply(*at, event);
                naive.apply(*at, event);
            }
            Step::Remove(at) => {
                index.remove(*at);
                naive.remove(*at);
            }
            Step::Sweep => (0..600).for_each(|_| index.apply(rank(0), &nothing)),
        }
        after(index, &naive);
    }
}

fn overlaps(index: &FlatIndex, chain: &[RoutingHash]) -> BTreeMap<WorkerRank, Overlap> {
    let matches = index.matches(chain);
    let overlaps: BTreeMap<_, _> = matches.iter().map(|m| (m.at, m.overlap)).collect();
    assert_eq!(overlaps.len(), matches.len(), "a rank is found once");
    overlaps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_finds_what_the_events_told(steps in steps(), chain in hashes(8)) {
        run(&steps, &mut FlatIndex::new(usize::MAX), |index, naive| {
            let found = overlaps(index, &chain);
            for at in (0..6).map(rank) {
                let expected = naive.overlap(at, &chain);
                assert_eq!(found.get(&at).copied().unwrap_or_default(), expected, "{at}");
                assert_eq!(found.contains_key(&at), expected.blocks() > 0);
                assert_eq!(index.blocks_at(at), naive.blocks_at(at));
            }
            let blocks = (0..6).map(|n| naive.blocks_at(rank(n))).sum::<usize>();
            assert_eq!(index.len(), blocks);
            assert_eq!(index.is_empty(), blocks == 0);
            assert_eq!(index.dropped_blocks(), 0);
        });
    }

    #[test]
    fn a_full_index_says_less_and_never_more(steps in steps(), chain in hashes(8)) {
        let empty = FlatIndex::new(usize::MAX).size_bytes();
        // Room for the ranks and a block or two in one or two of the shards.
        let max_bytes = empty + 4_000;
        run(&steps, &mut FlatIndex::new(max_bytes), |index, naive| {
            assert!(index.size_bytes() <= max_bytes, "{}", index.size_bytes());
            for (at, found) in overlaps(index, &chain) {
                assert!(found.blocks() <= naive.overlap(at, &chain).blocks());
                assert!(index.blocks_at(at) <= naive.blocks_at(at));
            }
        });
    }
}

fn stored(from: u64, blocks: u64) -> KvEvent {
    KvEvent::Stored {
        tier: Tier::G1,
        group: CacheGroup(0),
        parent: None,
        blocks: spread(from, blocks),
    }
}

fn removed(from: u64, blocks: u64) -> KvEvent {
    KvEvent::Removed {
        tier: Tier::G1,
        group: CacheGroup(0),
        blocks: spread(from, blocks),
    }
}

/// Hashes as real ones are: over all of the index.
fn spread(from: u64, blocks: u64) -> Vec<RoutingHash> {
    let scatter = |n: u64| RoutingHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (from..from + blocks).map(scatter).collect()
}

#[test]
fn a_prefix_ends_at_the_first_block_that_is_gone() {
    let mut index = FlatIndex::new(1 << 20);
    index.apply(rank(0), &stored(0, 8));
    index.apply(rank(2), &stored(0, 8));
    index.apply(rank(0), &removed(3, 1));
    let found = overlaps(&index, &spread(0, 10));
    assert_eq!(found[&rank(0)], Overlap::in_tier(Tier::G1, 3));
    assert_eq!(found[&rank(2)], Overlap::in_tier(Tier::G1, 8));
}

#[test]
fn a_prefix_goes_on_in_a_lower_tier_and_back() {
    let mut index = FlatIndex::new(1 << 20);
    index.apply(rank(0), &stored(0, 2));
    index.apply(rank(0), &stored(5, 3));
    let below = KvEvent::Stored {
        tier: Tier::G2,
        group: CacheGroup(0),
        parent: Some(spread(1, 1)[0]),
        blocks: spread(2, 4),
    };
    index.apply(rank(0), &below);
    let overlap = overlaps(&index, &spread(0, 9))[&rank(0)];
    assert_eq!(overlap.blocks(), 8);
    // Block 5 is in both tiers and counts for the nearer.
    assert_eq!(overlap.blocks_in(Tier::G1), 5);
    assert_eq!(overlap.blocks_in(Tier::G2), 3);
}

#[test]
fn memory_comes_back_after_churn() {
    let mut index = FlatIndex::new(64 << 20);
    for at in (0..4).map(rank) {
        index.apply(at, &stored(0, 1));
        index.apply(at, &removed(0, 1));
    }
    let before = index.size_bytes();
    for at in 0..4 {
        // Half of each worker's blocks are its neighbour's as well.
        index.apply(rank(at), &stored(u64::from(at) * 25_000, 50_000));
    }
    assert_eq!(index.len(), 200_000);
    let bytes = index.size_bytes() - before;
    assert!(bytes < 200_000 * 45, "{} bytes a block", bytes / 200_000);
    for at in 0..4 {
        index.apply(rank(at), &removed(u64::from(at) * 25_000, 50_000));
    }
    assert!(index.is_empty());
    assert_eq!(index.size_bytes(), before);
}

#[test]
fn a_window_that_moves_takes_no_more_memory() {
    let mut index = FlatIndex::new(64 << 20);
    let window = 5_000;
    for at in (0..2).map(rank) {
        index.apply(at, &stored(0, window));
    }
    let mut most = 0;
    for n in 0..300 {
        for at in (0..2).map(rank) {
            index.apply(at, &stored(window + n * 500, 500));
            index.apply(at, &removed(n * 500, 500));
        }
        most = most.max(index.size_bytes());
    }
    assert_eq!(index.len() as u64, 2 * window);
    assert!(most < 1_200_000, "{most}");
}

#[test]
fn what_a_gone_worker_took_comes_back() {
    let mut index = FlatIndex::new(64 << 20);
    index.apply(rank(0), &stored(0, 10));
    let before = index.size_bytes();
    index.apply(rank(2), &stored(5, 50_000));
    index.remove(rank(2));
    assert_eq!(index.len(), 10);
    assert_eq!(overlaps(&index, &spread(0, 10)).len(), 1);
    for _ in 0..4_000 {
        index.apply(rank(0), &removed(0, 0));
    }
    let after = index.size_bytes();
    assert!(after < before + 1_000, "{before} {after}");

    // The last one takes everything with it at once.
    index.remove(rank(0));
    assert!(index.is_empty());
    assert!(index.size_bytes() < before);
}

#[test]
fn a_full_index_has_room_again_after_removals() {
    let mut index = FlatIndex::new(1 << 20);
    index.apply(rank(0), &stored(0, 100_000));
    assert!(index.size_bytes() <= 1 << 20);
    let (kept, dropped) = (index.len(), index.dropped_blocks());
    assert_eq!(kept as u64 + dropped, 100_000);
    assert!(kept > 20_000, "{kept}");

    index.apply(rank(0), &removed(0, 100_000));
    assert!(index.is_empty(), "what was dropped can be removed as well");
    index.apply(rank(0), &stored(0, 1_000));
    assert_eq!(index.len(), 1_000);

    // A cleared tier's blocks make room too, before they are swept.
    index.apply(rank(0), &stored(1_000, 100_000));
    index.apply(rank(2), &stored(500_000, 1));
    index.apply(rank(0), &KvEvent::Cleared { tier: Tier::G1 });
    let dropped = index.dropped_blocks();
    index.apply(rank(2), &stored(600_000, 10_000));
    assert_eq!(index.dropped_blocks(), dropped);
}
