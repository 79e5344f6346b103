use std::collections::BTreeMap;

use super::booking::{BookingBatch, BookingEvent, SharedBooking, digest};
use super::log_snapshot::{Bookings, LogSnapshot};

/// An owner's bookings, and what others have not been told of them yet.
///
/// However much happens to a booking between two batches, it makes one event; none, if nobody was
/// told of it before it ended. So what is to be told stays small where nobody is told for long.
#[derive(Debug, Default)]
pub struct BookingLog {
    bookings: Bookings,
    /// Of each booking that others are to be told of, what; in the order of their numbers, so that
    /// a batch takes time for what is in it alone.
    pending: BTreeMap<u64, Pending>,
    sequence: u64,
    /// How many snapshots were taken.
    snapshots: u64,
    /// Of the bookings.
    digest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    /// In no batch yet, nor in a snapshot beyond the first so many.
    New(u64),
    /// Others may know it, or what had its number before.
    Booked,
    Changed,
    Ended,
}

impl BookingLog {
    /// Nothing is booked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something was booked, in place of what had this number if it was not ended.
    pub fn booked(&mut self, id: u64, booking: SharedBooking) {
        self.digest = self.digest.wrapping_add(digest(id, &booking));
        let before = self.bookings.insert(id, booking);
        if let Some(before) = &before {
            self.digest = self.digest.wrapping_sub(digest(id, before));
        }
        let pending = match (before, self.pending.get(&id)) {
            (None, None) => Pending::New(self.snapshots),
            (_, Some(new @ Pending::New(_))) => *new,
            _ => Pending::Booked,
        };
        self.pending.insert(id, pending);
    }

    /// The request's first token came.
    pub fn first_token(&mut self, id: u64) {
        self.change(id, |booking| booking.has_first_token = true);
    }

    /// The request's output took `blocks` KV blocks more.
    pub fn grew(&mut self, id: u64, blocks: u64) {
        self.change(id, |booking| booking.blocks += blocks);
    }

    /// The request ended. One that is not booked, or not any more, is fine.
    pub fn ended(&mut self, id: u64) {
        let Some(booking) = self.bookings.remove(id) else {
            return;
        };
        self.digest = self.digest.wrapping_sub(digest(id, &booking));
        match self.pending.get(&id) {
            Some(&Pending::New(snapshots)) if snapshots == self.snapshots => {
                self.pending.remove(&id);
            }
            _ => {
                self.pending.insert(id, Pending::Ended);
            }
        }
    }

    /// How many bookings there are.
    pub fn len(&self) -> usize {
        self.bookings.len()
    }

    /// Whether nothing is booked.
    pub fn is_empty(&self) -> bool {
        self.bookings.is_empty()
    }

    /// Whether there is something to tell.
    pub fn has_news(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next batch: what is to be told, as much of it as has about `most_hashes` hashes and
    /// events. To be called again while [`Self::has_news`]; where there is none, the batch only
    /// tells where things stand.
    pub fn next_batch(&mut self, most_hashes: usize) -> BookingBatch {
        self.sequence += 1;
        let mut events = Vec::new();
        let mut hashes = 0;
        while hashes < most_hashes
            && let Some((id, pending)) = self.pending.pop_first()
        {
            let event = match (pending, self.bookings.get(id)) {
                (Pending::New(_) | Pending::Booked, Some(booking)) => {
                    BookingEvent::Booked(id, booking.clone())
                }
                (Pending::Changed, Some(booking)) => BookingEvent::Changed {
                    id,
                    blocks: booking.blocks,
                    has_first_token: booking.has_first_token,
                },
                (Pending::Ended, _) | (_, None) => BookingEvent::Ended(id),
            };
            hashes += 1 + event.hashes();
            events.push(event);
        }
        BookingBatch {
            sequence: self.sequence,
            events,
            digest: self.pending.is_empty().then_some(self.digest),
        }
    }

    /// All bookings, for who has missed a batch. It takes no time for each booking; what changes
    /// while the snapshot is kept takes a little more.
    pub fn snapshot(&mut self) -> LogSnapshot {
        self.snapshots += 1;
        LogSnapshot::new(self.sequence, self.bookings.clone())
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut SharedBooking)) {
        if let Some(booking) = self.bookings.get_mut(id) {
            self.digest = self.digest.wrapping_sub(digest(id, booking));
            change(booking);
            self.digest = self.digest.wrapping_add(digest(id, booking));
            // One that nobody was told of yet is told of as it stands then.
            self.pending.entry(id).or_insert(Pending::Changed);
        }
    }
}
