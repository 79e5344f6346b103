use forebay_tokens::WorkerId;
use rustc_hash::FxHashMap;

use super::booking::{BookingBatch, BookingEvent, BookingSnapshot, SharedBooking, digest};
use super::waiting::Waiting;
use crate::{BookingId, OwnerId, WorkerRank};

/// The most that an owner is believed to have booked, as [`SharedBooking::size`] counts it:
/// 256 MiB.
const MOST_BOOKED: usize = 32 << 20;

/// The bookings of other owners, as far as they have told.
///
/// An owner is followed from a snapshot on. What was lost shows in a gap of its numbers or in a
/// digest that differs; from then on nothing is believed until the next snapshot, and what was known
/// stays as the best there is. So it is with a batch after which an owner's bookings took more than
/// 256 MiB.
#[derive(Debug, Default)]
pub struct ReplicaSet {
    owners: FxHashMap<OwnerId, Replica>,
}

/// One owner's bookings.
#[derive(Debug, Default)]
struct Replica {
    bookings: FxHashMap<u64, SharedBooking>,
    digest: u64,
    /// The sum of the bookings' sizes.
    size: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The batch of this number is next.
    InStep(u64),
    /// A snapshot is needed; these came since.
    Behind(Waiting),
}

impl Default for State {
    fn default() -> Self {
        Self::Behind(Waiting::default())
    }
}

/// Whether an owner's bookings are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// As of its last batch.
    InStep,
    /// A snapshot must be asked for.
    NeedsSnapshot,
    /// One is needed, and that was said before.
    Waiting,
}

/// A change of another owner's bookings, to be made in the book of the worker's router:
/// [`Router::take`](crate::Router::take).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaChange {
    /// A request was sent.
    Booked(BookingId, SharedBooking),
    /// The first token of the request came, which was sent there.
    FirstToken(BookingId, WorkerRank),
    /// The output of the request, which was sent there, took so many KV blocks more.
    Grew(BookingId, WorkerRank, u64),
    /// The request, which was sent there, ended.
    Ended(BookingId, WorkerRank),
}

impl ReplicaChange {
    /// Whose router it concerns.
    pub fn at(&self) -> WorkerRank {
        match self {
            Self::Booked(_, booking) => booking.at,
            Self::FirstToken(_, at) | Self::Grew(_, at, _) | Self::Ended(_, at) => *at,
        }
    }
}

impl ReplicaSet {
    /// Nobody is followed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows an owner from now on: ask for its snapshot.
    pub fn join(&mut self, owner: OwnerId) {
        self.owners.entry(owner).or_default();
    }

    /// Takes an owner's batch, and adds what it changes to `changes`. That of an owner who is not
    /// followed changes nothing.
    pub fn apply(
        &mut self,
        owner: OwnerId,
        batch: BookingBatch,
        changes: &mut Vec<ReplicaChange>,
    ) -> Followed {
        let Some(replica) = self.owners.get_mut(&owner) else {
            return Followed::Waiting;
        };
        match &mut replica.state {
            State::Behind(waiting) => {
                waiting.push(batch);
                Followed::Waiting
            }
            State::InStep(_) => replica.follow(owner, batch, changes),
        }
    }

    /// Batches of an owner were lost, as is known without the next one.
    pub fn lagged(&mut self, owner: OwnerId) -> Followed {
        match self.owners.get_mut(&owner) {
            Some(replica) if matches!(replica.state, State::InStep(_)) => {
                replica.state = State::default();
                Followed::NeedsSnapshot
            }
            _ => Followed::Waiting,
        }
    }

    /// Takes an owner's snapshot, and what came while it was on its way; adds what that changes to
    /// `changes`.
    pub fn restore(
        &mut self,
        owner: OwnerId,
        snapshot: BookingSnapshot,
        changes: &mut Vec<ReplicaChange>,
    ) -> Followed {
        let Some(replica) = self.owners.get_mut(&owner) else {
            return Followed::Waiting;
        };
        let known: FxHashMap<_, _> = snapshot.bookings.into_iter().collect();
        let gone = replica.bookings.keys().filter(|id| !known.contains_key(id));
        for id in gone.copied().collect::<Vec<_>>() {
            replica.put(owner, id, None, changes);
        }
        for (id, booking) in known {
            replica.put(owner, id, Some(booking), changes);
        }
        let next = State::InStep(snapshot.sequence + 1);
        let State::Behind(waiting) = std::mem::replace(&mut replica.state, next) else {
            return Followed::InStep;
        };
        let mut waiting = waiting.into_batches();
        while let Some(batch) = waiting.next() {
            if replica.follow(owner, batch, changes) == Followed::NeedsSnapshot {
                replica.state = State::Behind(waiting.collect());
                return Followed::NeedsSnapshot;
            }
        }
        Followed::InStep
    }

    /// An owner is gone, and all its bookings end.
    pub fn leave(&mut self, owner: OwnerId) -> Vec<ReplicaChange> {
        let replica = self.owners.remove(&owner).unwrap_or_default();
        let ended = replica.bookings.into_iter();
        ended
            .map(|(id, booking)| ReplicaChange::Ended(BookingId::new(owner, id), booking.at))
            .collect()
    }

    /// All that others have booked at a worker, whatever the rank.
    pub fn at(&self, worker: WorkerId) -> impl Iterator<Item = (BookingId, &SharedBooking)> {
        self.owners.iter().flat_map(move |(owner, replica)| {
            let bookings = replica.bookings.iter();
            let there = bookings.filter(move |(_, booking)| booking.at.worker == worker);
            there.map(|(id, booking)| (BookingId::new(*owner, *id), booking))
        })
    }

    /// How many bookings are known, of all owners.
    pub fn len(&self) -> usize {
        let replicas = self.owners.values();
        replicas.map(|replica| replica.bookings.len()).sum()
    }

    /// Whether no booking is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many owners are followed, and how many of them are in step.
    pub fn owners(&self) -> (usize, usize) {
        let in_step = |replica: &&Replica| matches!(replica.state, State::InStep(_));
        let in_step = self.owners.values().filter(in_step).count();
        (self.owners.len(), in_step)
    }
}

impl Replica {
    /// Takes a batch while in step.
    fn follow(
        &mut self,
        owner: OwnerId,
        batch: BookingBatch,
        changes: &mut Vec<ReplicaChange>,
    ) -> Followed {
        let State::InStep(next) = &mut self.state else {
            return Followed::Waiting;
        };
        if batch.sequence < *next {
            return Followed::InStep;
        }
        if batch.sequence > *next {
            // What is in it is not lost for the snapshot to come.
            self.state = State::Behind([batch].into_iter().collect());
            return Followed::NeedsSnapshot;
        }
        if self.size + batch.size() > MOST_BOOKED {
            self.state = State::default();
            return Followed::NeedsSnapshot;
        }
        *next += 1;
        for event in batch.events {
            self.take(owner, event, changes);
        }
        match batch.digest {
            Some(digest) if digest != self.digest => {
                self.state = State::default();
                Followed::NeedsSnapshot
            }
            _ => Followed::InStep,
        }
    }

    fn take(&mut self, owner: OwnerId, event: BookingEvent, changes: &mut Vec<ReplicaChange>) {
        match event {
            BookingEvent::Booked(id, booking) => self.put(owner, id, Some(booking), changes),
            BookingEvent::Ended(id) => self.put(owner, id, None, changes),
            BookingEvent::Changed {
                id,
                blocks,
                has_first_token,
            } => {
                // One that is not known shows in the digest.
                if let Some(booking) = self.bookings.get(&id) {
                    let booking = SharedBooking {
                        blocks,
                        has_first_token,
                        ..booking.clone()
                    };
                    self.put(owner, id, Some(booking), changes);
                }
            }
        }
    }

    /// A booking is as it is now, or not there.
    fn put(
        &mut self,
        owner: OwnerId,
        id: u64,
        now: Option<SharedBooking>,
        changes: &mut Vec<ReplicaChange>,
    ) {
        let name = BookingId::new(owner, id);
        let before = match &now {
            Some(now) => self.bookings.insert(id, now.clone()),
            None => self.bookings.remove(&id),
        };
        let size_of =
            |booking: &Option<SharedBooking>| booking.as_ref().map_or(0, |booking| booking.size());
        self.size = self.size + size_of(&now) - size_of(&before);
        let digest_of = |booking: &Option<SharedBooking>| {
            booking.as_ref().map_or(0, |booking| digest(id, booking))
        };
        self.digest = self
            .digest
            .wrapping_add(digest_of(&now))
            .wrapping_sub(digest_of(&before));
        match (before, now) {
            (Some(before), Some(now)) if goes_on(&before, &now) => {
                if now.has_first_token && !before.has_first_token {
                    changes.push(ReplicaChange::FirstToken(name, now.at));
                }
                if now.blocks > before.blocks {
                    let blocks = now.blocks - before.blocks;
                    changes.push(ReplicaChange::Grew(name, now.at, blocks));
                }
            }
            (before, now) => {
                let ended = before.map(|booking| ReplicaChange::Ended(name, booking.at));
                let booked = now.map(|booking| ReplicaChange::Booked(name, booking));
                changes.extend(ended.into_iter().chain(booked));
            }
        }
    }
}

/// Whether a booking can have come to be `now` as its request went on.
fn goes_on(before: &SharedBooking, now: &SharedBooking) -> bool {
    before.at == now.at
        && before.chain == now.chain
        && before.prompt_tokens == now.prompt_tokens
        && before.prefill_tokens == now.prefill_tokens
        && before.blocks <= now.blocks
        && before.has_first_token <= now.has_first_token
}
