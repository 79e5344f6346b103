use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::booking::{BookingBatch, BookingEvent, BookingSnapshot, SharedBooking, digest};

/// An owner's bookings, and what others have not been told of them yet.
///
/// However much happens to a booking between two batches, it makes one event.
#[derive(Debug, Default)]
pub struct BookingLog {
    bookings: FxHashMap<u64, SharedBooking>,
    /// Of each booking that others are to be told of, what.
    pending: FxHashMap<u64, Pending>,
    sequence: u64,
    /// Of the bookings.
    digest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
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
        if let Some(before) = self.bookings.insert(id, booking) {
            self.digest = self.digest.wrapping_sub(digest(id, &before));
        }
        self.pending.insert(id, Pending::Booked);
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
        if let Some(booking) = self.bookings.remove(&id) {
            self.digest = self.digest.wrapping_sub(digest(id, &booking));
            // Also of one that no batch has had yet: a snapshot may have.
            self.pending.insert(id, Pending::Ended);
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
        let ids: Vec<u64> = self.pending.keys().copied().collect();
        for id in ids {
            if hashes >= most_hashes {
                break;
            }
            let Entry::Occupied(pending) = self.pending.entry(id) else {
                continue;
            };
            let event = match (pending.remove(), self.bookings.get(&id)) {
                (Pending::Booked, Some(booking)) => BookingEvent::Booked(id, booking.clone()),
                (Pending::Changed, Some(booking)) => BookingEvent::Changed {
                    id,
                    blocks: booking.blocks,
                    has_first_token: booking.has_first_token,
                },
                (Pending::Ended, _) | (_, None) => BookingEvent::Ended(id),
            };
            hashes += match &event {
                BookingEvent::Booked(_, booking) => 1 + booking.chain.len(),
                _ => 1,
            };
            events.push(event);
        }
        BookingBatch {
            sequence: self.sequence,
            events,
            digest: self.pending.is_empty().then_some(self.digest),
        }
    }

    /// All bookings, for who has missed a batch.
    pub fn snapshot(&self) -> BookingSnapshot {
        let bookings = self.bookings.iter();
        BookingSnapshot {
            sequence: self.sequence,
            bookings: bookings
                .map(|(id, booking)| (*id, booking.clone()))
                .collect(),
        }
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut SharedBooking)) {
        if let Some(booking) = self.bookings.get_mut(&id) {
            self.digest = self.digest.wrapping_sub(digest(id, booking));
            change(booking);
            self.digest = self.digest.wrapping_add(digest(id, booking));
            // One that nobody was told of yet is told of as it stands then.
            self.pending.entry(id).or_insert(Pending::Changed);
        }
    }
}
