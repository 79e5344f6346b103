use forebay_perf_model::Iteration;
use forebay_tokens::{RoutingHash, Tier};
use rustc_hash::FxHashMap;

use super::{Booking, BookingId, Load, OwnerId};
use crate::WorkerRank;
use crate::index::{FlatIndex, Match, PrefixIndex};

/// What was sent to which worker and has not ended: a set of bookings, and each worker's totals.
///
/// Every change names its booking, and one that is not there (any more) changes nothing: ends may
/// come twice, late, or for something that was never booked. The totals are those of the bookings
/// at any time, whatever happened in between, and workers need not be announced or taken back.
///
/// The prompts of running requests are blocks that their workers have or are about to have, which
/// is known here before any KV event tells it: see [`Self::matches`].
#[derive(Debug)]
pub struct LoadBook {
    bookings: FxHashMap<BookingId, Booked>,
    slots: FxHashMap<WorkerRank, Slot>,
    totals: Vec<Total>,
    free: Vec<Slot>,
    /// The prompts of the bookings, by worker.
    prompts: FlatIndex,
}

/// What runs is little beside what is cached: a few tables hold it, and stay in the processor's
/// caches.
const PROMPT_SHARDS: usize = 8;

/// The number of a worker's rank in a book, while it is used or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

#[derive(Debug)]
struct Booked {
    slot: Slot,
    chain: Box<[RoutingHash]>,
    blocks: u64,
    /// `None` once the first token came.
    prefill: Option<Iteration>,
}

#[derive(Debug)]
struct Total {
    at: WorkerRank,
    load: Load,
    /// Blocks beside the prompts' full ones.
    unshared_blocks: u64,
    held: bool,
}

impl LoadBook {
    /// An empty book.
    pub fn new() -> Self {
        Self {
            bookings: FxHashMap::default(),
            slots: FxHashMap::default(),
            totals: Vec::new(),
            free: Vec::new(),
            prompts: FlatIndex::with_shards(PROMPT_SHARDS, usize::MAX),
        }
    }

    /// Books a request. A booking of that id that is still there is ended first.
    pub fn book(&mut self, id: BookingId, booking: Booking<'_>) {
        self.end(id);
        let slot = self.slot(booking.at);
        let full_blocks = booking.chain.len() as u64;
        self.prompts.store(booking.at, Tier::G1, booking.chain);
        let cached_tokens = booking.prompt_tokens.saturating_sub(booking.prefill_tokens);
        let prefill = Iteration::prefill(cached_tokens..booking.prompt_tokens);

        let total = &mut self.totals[slot.0 as usize];
        total.load.requests += 1;
        total.load.prefills += 1;
        total.load.prefill_tokens += prefill.prefill_tokens;
        total.load.prefill_context_tokens += prefill.prefill_context_tokens;
        total.load.context_blocks += booking.blocks.max(full_blocks);
        total.unshared_blocks += booking.blocks.saturating_sub(full_blocks);
        self.count_used(slot);

        let booked = Booked {
            slot,
            chain: booking.chain.into(),
            blocks: booking.blocks.max(full_blocks),
            prefill: Some(prefill),
        };
        self.bookings.insert(id, booked);
    }

    /// The request's first token came: its prefill is done.
    pub fn first_token(&mut self, id: BookingId) {
        if let Some(booked) = self.bookings.get_mut(&id)
            && let Some(prefill) = booked.prefill.take()
        {
            let load = &mut self.totals[booked.slot.0 as usize].load;
            load.prefills -= 1;
            load.prefill_tokens -= prefill.prefill_tokens;
            load.prefill_context_tokens -= prefill.prefill_context_tokens;
        }
    }

    /// The request's output took `blocks` KV blocks more.
    pub fn grew(&mut self, id: BookingId, blocks: u64) {
        if let Some(booked) = self.bookings.get_mut(&id) {
            booked.blocks += blocks;
            let total = &mut self.totals[booked.slot.0 as usize];
            total.load.context_blocks += blocks;
            total.load.used_blocks += blocks;
            total.unshared_blocks += blocks;
        }
    }

    /// The request ended, one way or another; whether it was booked.
    pub fn end(&mut self, id: BookingId) -> bool {
        self.first_token(id);
        let Some(booked) = self.bookings.remove(&id) else {
            return false;
        };
        let total = &mut self.totals[booked.slot.0 as usize];
        total.load.requests -= 1;
        total.load.context_blocks -= booked.blocks;
        total.unshared_blocks -= booked.blocks - booked.chain.len() as u64;
        let at = total.at;
        self.prompts.unstore(at, Tier::G1, &booked.chain);
        self.count_used(booked.slot);
        self.free_unused(booked.slot);
        true
    }

    /// Everything an owner booked ended: that life of it is over. Returns how many bookings these
    /// were. Looks at all bookings.
    pub fn end_owner(&mut self, owner: OwnerId) -> usize {
        let of_owner = self.bookings.keys().filter(|id| id.owner == owner);
        let ids: Vec<BookingId> = of_owner.copied().collect();
        for id in &ids {
            self.end(*id);
        }
        ids.len()
    }

    /// What is booked at a worker's rank.
    pub fn load(&self, at: WorkerRank) -> Load {
        let slot = self.slots.get(&at);
        slot.map_or_else(Load::default, |slot| *self.load_in(*slot))
    }

    /// Which workers run requests whose prompts start as `chain` does, and for how many blocks.
    pub fn matches(&self, chain: &[RoutingHash]) -> Vec<Match> {
        self.prompts.matches(chain)
    }

    /// How many bookings there are.
    pub fn len(&self) -> usize {
        self.bookings.len()
    }

    /// Whether nothing is booked.
    pub fn is_empty(&self) -> bool {
        self.bookings.is_empty()
    }

    /// Where a booking is.
    pub fn booked_at(&self, id: BookingId) -> Option<WorkerRank> {
        let booked = self.bookings.get(&id)?;
        Some(self.totals[booked.slot.0 as usize].at)
    }

    /// The rank's number until [`Self::let_go`], for [`Self::load_in`].
    pub(crate) fn hold(&mut self, at: WorkerRank) -> Slot {
        let slot = self.slot(at);
        self.totals[slot.0 as usize].held = true;
        slot
    }

    /// The rank's number is not kept any more.
    pub(crate) fn let_go(&mut self, slot: Slot) {
        self.totals[slot.0 as usize].held = false;
        self.free_unused(slot);
    }

    /// What is booked at a rank that is held or has bookings.
    pub(crate) fn load_in(&self, slot: Slot) -> &Load {
        &self.totals[slot.0 as usize].load
    }

    fn slot(&mut self, at: WorkerRank) -> Slot {
        *self.slots.entry(at).or_insert_with(|| {
            let total = Total {
                at,
                load: Load::default(),
                unshared_blocks: 0,
                held: false,
            };
            match self.free.pop() {
                Some(slot) => {
                    self.totals[slot.0 as usize] = total;
                    slot
                }
                None => {
                    self.totals.push(total);
                    Slot(u32::try_from(self.totals.len() - 1).expect("ranks are few"))
                }
            }
        })
    }

    fn free_unused(&mut self, slot: Slot) {
        let total = &self.totals[slot.0 as usize];
        if !total.held && total.load.requests == 0 {
            self.slots.remove(&total.at);
            self.prompts.remove(total.at);
            self.free.push(slot);
        }
    }

    fn count_used(&mut self, slot: Slot) {
        let total = &mut self.totals[slot.0 as usize];
        let prompts = self.prompts.blocks_at(total.at) as u64;
        total.load.used_blocks = prompts + total.unshared_blocks;
    }
}

impl Default for LoadBook {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
