use std::fmt;

use forebay_tokens::RoutingHash;

use crate::WorkerRank;

/// One life of a process that books: drawn anew when it starts, so that what an earlier life left
/// can be told apart and ended as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

/// The name of a booking: unique among its owner's for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BookingId {
    /// Who booked.
    pub owner: OwnerId,
    /// The owner's own number for it.
    pub id: u64,
}

impl BookingId {
    /// An owner's booking.
    pub const fn new(owner: OwnerId, id: u64) -> Self {
        Self { owner, id }
    }
}

impl fmt::Display for BookingId {
    /// `owner/id`, both hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{:x}", self.owner.0, self.id)
    }
}

/// What a request takes of the worker it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booking<'a> {
    /// Where it was sent.
    pub at: WorkerRank,
    /// The hashes of its prompt's full blocks, first to last.
    pub chain: &'a [RoutingHash],
    /// The KV blocks it starts with: those of `chain`, and one that its prompt does not fill.
    pub blocks: u64,
    /// The length of its prompt in tokens.
    pub prompt_tokens: u64,
    /// How many of them the worker has to compute, after hits; the last ones.
    pub prefill_tokens: u64,
}
