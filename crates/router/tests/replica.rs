//! What other routers are told of a router's bookings, and what they make of it.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use forebay_router::{
    Booking, BookingBatch, BookingEvent, BookingId, BookingLog, Followed, Load, LoadBook, OwnerId,
    ReplicaChange, ReplicaSet, Router, RouterConfig, SharedBooking, WorkerRank,
};
use forebay_tokens::{BlockSize, RoutingHash, WorkerId};
use proptest::collection::vec;
use proptest::prelude::*;

const OWNER: OwnerId = OwnerId(7);

fn rank(worker: u64) -> WorkerRank {
    WorkerId(worker).into()
}

fn booking(worker: u64, blocks: u64) -> SharedBooking {
    SharedBooking {
        at: rank(worker),
        chain: (0..blocks).map(RoutingHash).collect(),
        blocks: blocks + 1,
        prompt_tokens: blocks * 16 + 5,
        prefill_tokens: 21,
        has_first_token: false,
    }
}

/// An owner: its own book, and what it tells.
struct Owner {
    book: LoadBook,
    log: BookingLog,
}

impl Owner {
    fn new() -> Self {
        Self {
            book: LoadBook::new(),
            log: BookingLog::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        let name = |id| BookingId::new(OWNER, id);
        match *step {
            Step::Book(id, worker, blocks) => {
                let shared = booking(worker, blocks);
                let booked = Booking {
                    at: shared.at,
                    chain: &shared.chain,
                    blocks: shared.blocks,
                    prompt_tokens: shared.prompt_tokens,
                    prefill_tokens: shared.prefill_tokens,
                };
                self.book.book(name(id), booked);
                self.log.booked(id, shared);
            }
            Step::FirstToken(id) => {
                self.book.first_token(name(id));
                self.log.first_token(id);
            }
            Step::Grew(id, blocks) => {
                self.book.grew(name(id), blocks);
                self.log.grew(id, blocks);
            }
            Step::End(id) => {
                self.book.end(name(id));
                self.log.ended(id);
            }
            _ => {}
        }
    }

    fn loads(&self) -> BTreeMap<WorkerRank, Load> {
        let ranks = (0..3).map(rank);
        ranks.map(|at| (at, self.book.load(at))).collect()
    }
}

/// Who follows it.
struct Other {
    router: Router,
    set: ReplicaSet,
}

impl Other {
    fn new() -> Self {
        let block_size = BlockSize::new(16).unwrap();
        let mut router = Router::new(RouterConfig::default(), block_size).unwrap();
        for worker in 0..3 {
            router.add_worker(rank(worker), Default::default());
        }
        let mut set = ReplicaSet::new();
        set.join(OWNER);
        Self { router, set }
    }

    fn apply(&mut self, batch: BookingBatch) -> Followed {
        let mut changes = Vec::new();
        let followed = self.set.apply(OWNER, batch, &mut changes);
        self.change(&changes);
        followed
    }

    fn restore(&mut self, log: &mut BookingLog) -> Followed {
        let mut changes = Vec::new();
        let followed = self.set.restore(OWNER, log.snapshot().into(), &mut changes);
        self.change(&changes);
        followed
    }

    fn change(&mut self, changes: &[ReplicaChange]) {
        for change in changes {
            self.router.take(change);
        }
    }

    fn loads(&self) -> BTreeMap<WorkerRank, Load> {
        self.router.workers().collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Book(u64, u64, u64),
    FirstToken(u64),
    Grew(u64, u64),
    End(u64),
    /// A batch is made, and goes on its way...
    Tell,
    /// ... and arrives, is lost, or is there twice.
    Arrive,
    Lose,
    Twice,
    /// A snapshot is made and arrives, though nobody may have asked for it.
    Snapshot,
    Lagged,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0..8_u64;
    let step = prop_oneof![
        6 => (id(), 0..3_u64, 0..4_u64).prop_map(|(id, worker, blocks)| Step::Book(id, worker, blocks)),
        3 => id().prop_map(Step::FirstToken),
        3 => (id(), 1..3_u64).prop_map(|(id, blocks)| Step::Grew(id, blocks)),
        4 => id().prop_map(Step::End),
        6 => Just(Step::Tell),
        6 => Just(Step::Arrive),
        1 => Just(Step::Lose),
        1 => Just(Step::Twice),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Lagged),
    ];
    vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever was lost: once everything was told and one snapshot given, if one is asked for, the
    /// other's book is the owner's.
    #[test]
    fn one_repair_makes_the_books_equal(steps in steps(), most_hashes in 1..6_usize) {
        let (mut owner, mut other) = (Owner::new(), Other::new());
        let mut on_the_way = VecDeque::new();
        for step in &steps {
            owner.step(step);
            match step {
                Step::Tell => on_the_way.push_back(owner.log.next_batch(most_hashes)),
                Step::Arrive => {
                    if let Some(batch) = on_the_way.pop_front() {
                        other.apply(batch);
                    }
                }
                Step::Lose => drop(on_the_way.pop_front()),
                Step::Twice => {
                    if let Some(batch) = on_the_way.front() {
                        other.apply(batch.clone());
                    }
                }
                Step::Snapshot => drop(other.restore(&mut owner.log)),
                Step::Lagged => drop(other.set.lagged(OWNER)),
                _ => {}
            }
        }
        for batch in on_the_way {
            other.apply(batch);
        }
        // Everything is told, and then once more how things stand.
        while owner.log.has_news() {
            other.apply(owner.log.next_batch(most_hashes));
        }
        let last = other.apply(owner.log.next_batch(most_hashes));
        if last != Followed::InStep {
            prop_assert_eq!(other.restore(&mut owner.log), Followed::InStep);
        }
        prop_assert_eq!(other.loads(), owner.loads());
        prop_assert_eq!(other.set.len(), owner.book.len());
        prop_assert_eq!(other.router.book().len(), owner.book.len());
        let next = owner.log.next_batch(most_hashes);
        prop_assert_eq!(other.apply(next), Followed::InStep);

        // A life that ends leaves nothing behind.
        let ended = other.set.leave(OWNER);
        other.change(&ended);
        prop_assert!(other.set.is_empty() && other.router.book().is_empty());
    }
}

/// In step with an owner who has booked something.
fn in_step() -> (BookingLog, Other) {
    let (mut log, mut other) = (BookingLog::new(), Other::new());
    log.booked(1, booking(0, 2));
    assert_eq!(other.restore(&mut log), Followed::InStep);
    let batch = log.next_batch(100);
    assert_eq!(other.apply(batch), Followed::InStep);
    (log, other)
}

#[test]
fn what_happens_between_two_batches_is_one_event() {
    let mut log = BookingLog::new();
    log.booked(1, booking(0, 2));
    log.first_token(1);
    log.grew(1, 3);
    let booked = SharedBooking {
        blocks: 6,
        has_first_token: true,
        ..booking(0, 2)
    };
    assert_eq!(
        log.next_batch(100).events,
        [BookingEvent::Booked(1, booked)]
    );
    assert!(!log.has_news());
    log.grew(1, 1);
    log.ended(1);
    assert_eq!(log.next_batch(100).events, [BookingEvent::Ended(1)]);
}

/// While nobody is told, what has come and gone leaves nothing behind.
#[test]
fn what_ends_before_anybody_was_told_is_not_told() {
    let mut log = BookingLog::new();
    for id in 0..1000 {
        log.booked(id, booking(0, 2));
        log.first_token(id);
        log.grew(id, 1);
        log.ended(id);
        assert!(!log.has_news());
    }
    assert_eq!(log.next_batch(100).events, []);
}

#[test]
fn what_ends_after_a_snapshot_had_it_is_told() {
    let mut log = BookingLog::new();
    log.booked(1, booking(0, 2));
    let snapshot = log.snapshot();
    log.booked(2, booking(0, 2));
    log.ended(1);
    log.ended(2);
    let ids = snapshot.into_bookings().map(|(id, _)| id);
    assert_eq!(ids.collect::<Vec<_>>(), [1], "as it was then");
    assert_eq!(log.next_batch(100).events, [BookingEvent::Ended(1)]);
}

/// A number that is used again does not hide the end of what had it.
#[test]
fn what_is_booked_again_and_ends_is_told() {
    let mut log = BookingLog::new();
    log.booked(1, booking(0, 2));
    drop(log.next_batch(100));
    log.ended(1);
    log.booked(1, booking(1, 2));
    log.ended(1);
    assert_eq!(log.next_batch(100).events, [BookingEvent::Ended(1)]);
}

#[test]
fn a_lost_batch_shows_in_the_next_one() {
    let (mut log, mut other) = in_step();
    log.booked(2, booking(1, 1));
    drop(log.next_batch(100));
    assert_eq!(other.apply(log.next_batch(100)), Followed::NeedsSnapshot);
    assert_eq!(other.apply(log.next_batch(100)), Followed::Waiting);
    assert_eq!(other.restore(&mut log), Followed::InStep);
    assert_eq!(other.loads()[&rank(1)].requests, 1);
}

#[test]
fn a_state_that_differs_shows_in_the_digest() {
    let (mut log, mut other) = in_step();
    log.grew(1, 1);
    let mut batch = log.next_batch(100);
    batch.events.clear();
    assert_eq!(other.apply(batch), Followed::NeedsSnapshot);
}

#[test]
fn a_snapshot_older_than_what_came_meanwhile_is_caught_up() {
    let (mut log, mut other) = in_step();
    assert_eq!(other.set.lagged(OWNER), Followed::NeedsSnapshot);
    let snapshot = log.snapshot().into();
    log.ended(1);
    log.booked(2, booking(1, 1));
    assert_eq!(other.apply(log.next_batch(100)), Followed::Waiting);
    let mut changes = Vec::new();
    let followed = other.set.restore(OWNER, snapshot, &mut changes);
    assert_eq!(followed, Followed::InStep);
    other.change(&changes);
    let loads = other.loads();
    assert_eq!([0, 1].map(|worker| loads[&rank(worker)].requests), [0, 1]);
}

#[test]
fn what_waits_for_a_snapshot_is_bounded() {
    let (mut log, mut other) = in_step();
    other.set.lagged(OWNER);
    let snapshot = log.snapshot().into();
    for _ in 0..1000 {
        other.apply(log.next_batch(100));
    }
    let followed = other.set.restore(OWNER, snapshot, &mut Vec::new());
    assert_eq!(followed, Followed::NeedsSnapshot);
    assert_eq!(other.restore(&mut log), Followed::InStep);
}

/// Batches of one booking each, whose half a million hashes are shared.
fn large_batches(log: &mut BookingLog, bookings: u64) -> Vec<BookingBatch> {
    let large = booking(0, 1 << 19);
    let batches = (0..bookings).map(|id| {
        log.booked(100 + id, large.clone());
        log.next_batch(1)
    });
    batches.collect()
}

#[test]
fn what_waits_for_a_snapshot_is_bounded_though_batches_are_large() {
    let (mut log, mut other) = in_step();
    other.set.lagged(OWNER);
    let snapshot = log.snapshot().into();
    for batch in large_batches(&mut log, 3) {
        other.apply(batch);
    }
    let followed = other.set.restore(OWNER, snapshot, &mut Vec::new());
    assert_eq!(followed, Followed::NeedsSnapshot);
}

#[test]
fn an_owner_who_books_for_ever_is_not_believed() {
    let (mut log, mut other) = in_step();
    let batches = large_batches(&mut log, 80).into_iter();
    let followed = batches.map(|batch| other.set.apply(OWNER, batch, &mut Vec::new()));
    let in_step = followed.take_while(|followed| *followed == Followed::InStep);
    assert_eq!(in_step.count(), 63);
}

#[test]
fn what_is_at_a_worker_is_found() {
    let (_, other) = in_step();
    let at = |worker| other.set.at(WorkerId(worker)).map(|(id, _)| id).collect();
    let there: Vec<_> = at(0);
    assert_eq!(there, [BookingId::new(OWNER, 1)]);
    let none: Vec<_> = at(1);
    assert_eq!(none, []);
    assert_eq!(other.set.owners(), (1, 1));
}
