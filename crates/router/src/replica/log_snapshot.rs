use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::booking::{BookingSnapshot, SharedBooking};

/// In how many parts bookings are kept. A change copies the part that it is in, if a snapshot
/// shares that.
const PARTS: u64 = 256;

/// All bookings of a [`BookingLog`](super::BookingLog) as they were at one moment. They are not
/// copied before they are looked at.
#[derive(Clone, Debug)]
pub struct LogSnapshot {
    sequence: u64,
    bookings: Bookings,
}

impl LogSnapshot {
    pub(super) fn new(sequence: u64, bookings: Bookings) -> Self {
        Self { sequence, bookings }
    }

    /// The last batch whose events are in it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The bookings by the owner's numbers for them, in no order. Each step copies a few.
    pub fn into_bookings(self) -> impl Iterator<Item = (u64, SharedBooking)> + Send + 'static {
        let parts = self.bookings.parts.into_iter();
        parts.flat_map(|part| {
            let bookings = part.iter();
            let copied = bookings.map(|(id, booking)| (*id, booking.clone()));
            copied.collect::<Vec<_>>()
        })
    }
}

impl From<LogSnapshot> for BookingSnapshot {
    fn from(snapshot: LogSnapshot) -> Self {
        Self {
            sequence: snapshot.sequence(),
            bookings: snapshot.into_bookings().collect(),
        }
    }
}

/// Bookings by number. Cloning costs the same however many there are.
#[derive(Clone, Debug)]
pub(super) struct Bookings {
    parts: Vec<Arc<FxHashMap<u64, SharedBooking>>>,
    len: usize,
}

impl Default for Bookings {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Arc::default()).collect(),
            len: 0,
        }
    }
}

impl Bookings {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, id: u64) -> Option<&SharedBooking> {
        self.parts[index(id)].get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut SharedBooking> {
        self.part_mut(id).get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: u64, booking: SharedBooking) -> Option<SharedBooking> {
        let before = self.part_mut(id).insert(id, booking);
        self.len += usize::from(before.is_none());
        before
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<SharedBooking> {
        let removed = self.part_mut(id).remove(&id);
        self.len -= usize::from(removed.is_some());
        removed
    }

    fn part_mut(&mut self, id: u64) -> &mut FxHashMap<u64, SharedBooking> {
        Arc::make_mut(&mut self.parts[index(id)])
    }
}

fn index(id: u64) -> usize {
    (id % PARTS) as usize
}
