use std::collections::HashMap;
use std::sync::Arc;

use forebay_router::{BookingBatch, BookingSnapshot, Followed, OwnerId, ReplicaChange, ReplicaSet};
use forebay_tokens::WorkerId;
use parking_lot::Mutex;

use crate::pool::WorkerPool;

/// What other frontends have booked, and the pools in whose books that is. Cloning copies a
/// pointer.
#[derive(Clone, Default)]
pub(crate) struct SharedBooks(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    others: ReplicaSet,
    /// By worker, the pool that it is in.
    pools: HashMap<WorkerId, WorkerPool>,
}

impl SharedBooks {
    /// A worker is in a pool from now on, and in its book what others have sent there.
    pub(crate) fn joined(&self, worker: WorkerId, pool: &WorkerPool) {
        let mut books = self.0.lock();
        for (id, booking) in books.others.at(worker) {
            pool.take(&ReplicaChange::Booked(id, booking.clone()));
        }
        books.pools.insert(worker, pool.clone());
    }

    /// A worker is in no pool any more.
    pub(crate) fn left(&self, worker: WorkerId) {
        let mut books = self.0.lock();
        if let Some(pool) = books.pools.remove(&worker) {
            for (id, booking) in books.others.at(worker) {
                pool.take(&ReplicaChange::Ended(id, booking.at));
            }
        }
    }

    /// Another frontend is there.
    pub(super) fn join(&self, owner: OwnerId) {
        self.0.lock().others.join(owner);
    }

    /// Another frontend is gone.
    pub(super) fn leave(&self, owner: OwnerId) {
        let mut books = self.0.lock();
        let changes = books.others.leave(owner);
        books.change(&changes);
    }

    pub(super) fn apply(&self, owner: OwnerId, batch: BookingBatch) -> Followed {
        let (mut books, mut changes) = (self.0.lock(), Vec::new());
        let followed = books.others.apply(owner, batch, &mut changes);
        books.change(&changes);
        followed
    }

    pub(super) fn restore(&self, owner: OwnerId, snapshot: BookingSnapshot) -> Followed {
        let (mut books, mut changes) = (self.0.lock(), Vec::new());
        let followed = books.others.restore(owner, snapshot, &mut changes);
        books.change(&changes);
        followed
    }

    pub(super) fn lagged(&self, owner: OwnerId) -> Followed {
        self.0.lock().others.lagged(owner)
    }

    /// How many others are followed, how many of them are in step, and how many bookings are known.
    pub(super) fn size(&self) -> (usize, usize, usize) {
        let books = self.0.lock();
        let (owners, in_step) = books.others.owners();
        (owners, in_step, books.others.len())
    }
}

impl Books {
    /// Makes the changes in the books that there are: a worker's that is not known yet are made
    /// when it joins.
    fn change(&self, changes: &[ReplicaChange]) {
        for change in changes {
            if let Some(pool) = self.pools.get(&change.at().worker) {
                pool.take(change);
            }
        }
    }
}
