//! Followers of a ledger over a plane that loses, repeats and spoils what is published.
#![allow(clippy::unwrap_used)]

mod blocks;
mod world;

use std::time::Duration;

use blocks::Blocks;
use forebay_mux::events::{KvRepair, KvState, KvUpdate};
use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier};
use proptest::prelude::*;
use world::{Bug, Plane, World};

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The engine tells of a change.
    Change(u32, Vec<KvEvent>),
    /// The engine changes, tells nobody, and then tells the whole of a rank anew.
    Relapse(u32, Vec<KvEvent>),
    /// The worker begins a new epoch.
    Restart,
    /// One event is lost out of the next batch, but not the batch.
    Spoil,
    /// The plane says that something may be lost.
    Lag,
    /// The next questions are not answered.
    FailAsks(u32),
    /// Time passes.
    Pass(u64),
}

fn hashes() -> impl Strategy<Value = Vec<RoutingHash>> {
    prop::collection::vec((0..24_u64).prop_map(RoutingHash), 1..6)
}

fn event() -> impl Strategy<Value = KvEvent> {
    let tier = prop::sample::select(vec![Tier::G1, Tier::G2]);
    let group = (0..2_u8).prop_map(CacheGroup);
    let parent = prop::option::of((0..24_u64).prop_map(RoutingHash));
    prop_oneof![
        5 => (tier.clone(), group.clone(), parent, hashes()).prop_map(
            |(tier, group, parent, blocks)| KvEvent::Stored { tier, group, parent, blocks }
        ),
        4 => (tier.clone(), group, hashes()).prop_map(
            |(tier, group, blocks)| KvEvent::Removed { tier, group, blocks }
        ),
        1 => tier.prop_map(|tier| KvEvent::Cleared { tier }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let rank = 0..2_u32;
    let events = || prop::collection::vec(event(), 1..4);
    prop_oneof![
        20 => (rank.clone(), events()).prop_map(|(rank, events)| Step::Change(rank, events)),
        2 => (rank, events()).prop_map(|(rank, events)| Step::Relapse(rank, events)),
        1 => Just(Step::Restart),
        1 => Just(Step::Spoil),
        1 => Just(Step::Lag),
        1 => (1..3_u32).prop_map(Step::FailAsks),
        8 => (0..300_u64).prop_map(Step::Pass),
    ]
}

fn run(world: &mut World, steps: &[Step]) {
    for step in steps {
        match step.clone() {
            Step::Change(rank, events) => world.change(DpRank(rank), events),
            Step::Relapse(rank, events) => world.relapse(DpRank(rank), &events),
            Step::Restart => world.restart(),
            Step::Spoil => world.spoil_next(),
            Step::Lag => world.lag(),
            Step::FailAsks(asks) => world.fail_asks(asks),
            Step::Pass(millis) => world.pass(Duration::from_millis(millis)),
        }
    }
}

/// Whether the follower has the worker's truth after steps, in the end.
fn converges(seed: u64, steps: &[Step], bug: Bug) -> bool {
    let mut world = World::new(seed, Plane::lossy(), bug);
    run(&mut world, steps);
    world.settle(Duration::from_secs(120));
    world.is_exact() && world.truth() == world.known()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_follower_ends_with_the_worker_s_truth(
        seed: u64,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        prop_assert!(converges(seed, &steps, Bug::None));
    }

    #[test]
    fn while_a_follower_is_exact_it_has_what_was_published_up_to_its_position(
        seed: u64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        // Nothing is under way when time has passed, so being exact is having the truth.
        let mut world = World::new(seed, Plane::perfect(), Bug::None);
        for step in &steps {
            run(&mut world, std::slice::from_ref(step));
            world.pass(Duration::from_millis(50));
            if world.is_exact() {
                prop_assert_eq!(world.truth(), world.known());
            }
        }
    }
}

/// Steps by a generator of numbers, to run the same many times.
fn steps(seed: u64) -> Vec<Step> {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = prop::collection::vec(step(), 60);
    steps.new_tree(&mut runner).unwrap().current()
}

#[test]
fn planted_bugs_are_caught() {
    for bug in [Bug::NoMarks, Bug::ForgetsNothing, Bug::BelievesThePlane] {
        let is_caught = (0..200).any(|seed| !converges(seed, &steps(seed), bug));
        assert!(is_caught, "{bug:?} is not noticed");
    }
    assert!((0..200).all(|seed| converges(seed, &steps(seed), Bug::None)));
}

fn stored(hash: u64) -> Vec<KvEvent> {
    vec![KvEvent::Stored {
        tier: Tier::G1,
        group: CacheGroup(0),
        parent: None,
        blocks: vec![RoutingHash(hash)],
    }]
}

#[test]
fn what_is_lost_is_repaired_within_a_second_of_the_last_event() {
    let second = Duration::from_secs(1);
    let late = (0..2000).filter(|seed| {
        let mut world = World::new(*seed, Plane::lossy(), Bug::None);
        for hash in 0..100 {
            world.change(DpRank(0), stored(hash));
            world.pass(Duration::from_millis(10));
        }
        world.pass(second - Duration::from_millis(10));
        world.truth() != world.known()
    });
    // That the last event and three marks are lost has a chance of 1 in 10,000.
    assert!(late.count() <= 2);
}

#[test]
fn an_index_that_keeps_almost_nothing_leads_to_no_repair() {
    let mut world = World::new(1, Plane::perfect(), Bug::None);
    world.cap_index(2);
    for hash in 0..1000 {
        world.change(DpRank(0), stored(hash));
        world.pass(Duration::from_millis(5));
    }
    world.settle(Duration::from_secs(60));
    assert!(world.known().len() <= 2);
    assert_eq!(world.asks(), 1, "only for the start");
    assert!(world.is_exact());
}

#[test]
fn what_the_ring_has_is_repaired_by_range_and_the_rest_by_snapshot() {
    let mut world = World::new(7, Plane::perfect(), Bug::None);
    world.settle(Duration::from_secs(1));
    let KvState::Exact { since: first, by } = world.state() else {
        panic!("it does not start");
    };
    assert_eq!(by, KvRepair::Start);

    world.lose_next(3);
    for hash in 0..4 {
        world.change(DpRank(0), stored(hash));
    }
    world.settle(Duration::from_secs(1));
    let by = KvRepair::Range;
    assert_eq!(world.state(), KvState::Exact { since: first, by });

    // More than the ring of this world keeps.
    world.lose_next(1000);
    for hash in 0..1001 {
        world.change(DpRank(0), stored(hash));
    }
    world.settle(Duration::from_secs(1));
    let KvState::Exact { since, by } = world.state() else {
        panic!("it is not repaired");
    };
    assert_eq!((by, since.sequence), (KvRepair::Snapshot, 1005));

    world.spoil_next();
    world.change(DpRank(0), stored(5000));
    world.settle(Duration::from_secs(1));
    assert!(matches!(
        world.state(),
        KvState::Exact {
            by: KvRepair::Digest,
            ..
        }
    ));

    world.restart();
    world.settle(Duration::from_secs(10));
    let KvState::Exact { since, by } = world.state() else {
        panic!("it does not follow into a new epoch");
    };
    assert_eq!(by, KvRepair::Snapshot);
    assert!(since.epoch > first.epoch);
    assert_eq!(world.truth(), world.known());
}

#[test]
fn batches_that_cannot_be_understood_are_made_up_for_by_a_snapshot() {
    let mut world = World::new(11, Plane::perfect(), Bug::None);
    world.settle(Duration::from_secs(1));
    world.lose_next(1);
    world.change(DpRank(0), stored(1));
    world.garble_asks(1);
    world.settle(Duration::from_secs(1));
    assert!(matches!(
        world.state(),
        KvState::Exact {
            by: KvRepair::Digest,
            ..
        }
    ));
    assert_eq!(world.truth(), world.known());
}

#[test]
fn a_publisher_that_is_always_wrong_is_asked_ever_more_rarely() {
    let mut world = World::new(3, Plane::perfect(), Bug::None);
    let mut asks = Vec::new();
    for hash in 0..2000 {
        world.spoil_next();
        world.change(DpRank(0), stored(hash));
        world.pass(Duration::from_millis(30));
        asks.push(world.asks());
    }
    let (first, second) = (asks[999], asks[1999] - asks[999]);
    assert!(second < first, "{first}, then {second}");
    // Every 2.5 to 5 seconds in the end.
    assert!(second <= 13, "{second} in 30 s");
}

#[test]
fn the_blocks_of_a_ledger_and_its_snapshot_are_the_same() {
    let mut blocks = Blocks::default();
    let mut world = World::new(5, Plane::perfect(), Bug::None);
    for seed in 0..20 {
        for step in steps(seed) {
            if let Step::Change(rank, events) = step {
                for event in &events {
                    blocks.apply(DpRank(rank), event);
                }
                world.change(DpRank(rank), events);
            }
        }
    }
    assert_eq!(world.snapshot(), blocks);
    assert!(blocks.len() > 10);
}

proptest! {
    #[test]
    fn an_update_that_is_cut_comes_to_the_same(
        events in prop::collection::vec(event(), 0..12),
        is_reset: bool,
        most_blocks in 1..4_usize,
    ) {
        let rank = DpRank(1);
        let update = match is_reset {
            true => KvUpdate::Reset { rank, events },
            false => KvUpdate::Changes { rank, events },
        };
        let applied = |updates: &[KvUpdate]| {
            let mut blocks = Blocks::default();
            blocks.apply(rank, &stored(5)[0]);
            for update in updates {
                let events = match update {
                    KvUpdate::State(_) => continue,
                    KvUpdate::Changes { events, .. } => events,
                    KvUpdate::Reset { events, .. } => {
                        blocks.forget(rank);
                        events
                    }
                };
                for event in events {
                    blocks.apply(rank, event);
                }
            }
            blocks
        };
        let pieces = update.clone().cut(most_blocks);
        prop_assert_eq!(applied(&pieces), applied(&[update]));
        for piece in pieces {
            if let KvUpdate::Changes { events, .. } | KvUpdate::Reset { events, .. } = piece {
                let blocks = events.iter().map(|event| match event {
                    KvEvent::Stored { blocks, .. } | KvEvent::Removed { blocks, .. } => blocks.len(),
                    KvEvent::Cleared { .. } => 0,
                });
                prop_assert!(blocks.sum::<usize>() <= most_blocks);
            }
        }
    }
}
