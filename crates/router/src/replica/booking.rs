use std::sync::Arc;

use forebay_tokens::RoutingHash;

use crate::WorkerRank;

/// A booking as it stands, with all that another router's book needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedBooking {
    /// Where the request was sent.
    pub at: WorkerRank,
    /// The hashes of its prompt's full blocks, first to last.
    pub chain: Arc<[RoutingHash]>,
    /// The KV blocks it has by now: those of `chain`, one that its prompt does not fill, and those
    /// of its output.
    pub blocks: u64,
    /// The length of its prompt in tokens.
    pub prompt_tokens: u64,
    /// How many of them the worker has to compute, after hits.
    pub prefill_tokens: u64,
    /// Whether its first token came: its prefill is done.
    pub has_first_token: bool,
}

/// What a booking or an event takes beside its hashes, in numbers of 8 bytes.
const OWN_SIZE: usize = 16;

impl SharedBooking {
    /// What it takes to keep, in numbers of 8 bytes.
    pub(super) fn size(&self) -> usize {
        OWN_SIZE + self.chain.len()
    }
}

/// What became of one booking of an owner. Events carry states, not steps: one that comes twice
/// changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookingEvent {
    /// It is new, or booked anew.
    Booked(u64, SharedBooking),
    /// Its request went on.
    Changed {
        /// The owner's number for it.
        id: u64,
        /// The KV blocks it has by now.
        blocks: u64,
        /// Whether its first token came.
        has_first_token: bool,
    },
    /// It ended.
    Ended(u64),
}

/// What became of an owner's bookings since the batch before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookingBatch {
    /// Counts the batches of an owner from 1 without a gap.
    pub sequence: u64,
    /// Each booking at most once. None in a batch that only tells where things stand.
    pub events: Vec<BookingEvent>,
    /// The digest of all bookings after this batch, where it is the last of its time: the sum,
    /// modulo 2^64, of each booking's own. That is 0, and then for each of id, worker, rank,
    /// blocks, prompt tokens, prefill tokens, 1 if the first token came, the chain's length and
    /// its last hash, the number so far, exclusive or with that, through the finaliser of
    /// splitmix64.
    pub digest: Option<u64>,
}

impl BookingEvent {
    /// What it takes to keep, in numbers of 8 bytes.
    pub(super) fn size(&self) -> usize {
        OWN_SIZE + self.hashes()
    }

    /// How many hashes it has.
    pub(super) fn hashes(&self) -> usize {
        match self {
            Self::Booked(_, booking) => booking.chain.len(),
            Self::Changed { .. } | Self::Ended(_) => 0,
        }
    }
}

impl BookingBatch {
    /// The sum over its events.
    pub(super) fn size(&self) -> usize {
        self.events.iter().map(BookingEvent::size).sum()
    }
}

/// All bookings of an owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookingSnapshot {
    /// The last batch whose events are in it.
    pub sequence: u64,
    /// By the owner's numbers for them.
    pub bookings: Vec<(u64, SharedBooking)>,
}

/// A booking's part of the digest.
pub(super) fn digest(id: u64, booking: &SharedBooking) -> u64 {
    let parts = [
        id,
        booking.at.worker.0,
        booking.at.rank.0.into(),
        booking.blocks,
        booking.prompt_tokens,
        booking.prefill_tokens,
        booking.has_first_token.into(),
        booking.chain.len() as u64,
        booking.chain.last().map_or(0, |hash| hash.0),
    ];
    parts.into_iter().fold(0, |so_far, part| mix(so_far ^ part))
}

/// The finaliser of splitmix64, after its increment.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use forebay_tokens::{DpRank, WorkerId};

    use super::*;

    /// Other versions compute the same.
    #[test]
    fn the_digest_is_what_it_always_was() {
        let booking = SharedBooking {
            at: WorkerRank::new(WorkerId(7), DpRank(1)),
            chain: [RoutingHash(3), RoutingHash(4)].into(),
            blocks: 3,
            prompt_tokens: 40,
            prefill_tokens: 24,
            has_first_token: true,
        };
        assert_eq!(digest(5, &booking), 4_474_554_066_051_937_355);
        // The first number of the published generator with seed 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
