//! The choice among the workers of a pool, and what is booked with them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use forebay_engine::Engine;
use forebay_router::{BookingId, ReplicaChange, Request, Selector as _, SharedBooking, WorkerRank};
use forebay_tokens::{RoutingSeed, TokenId};

use super::{State, WorkerPool};
use crate::pool::{Booking, RoutedPrompt};

/// What is added to the state of splitmix64 for each number.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A worker in one of its lives: one that went and came back is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: WorkerRank,
    incarnation: u64,
}

/// A worker that was chosen.
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) booking: Booking,
}

impl WorkerPool {
    /// A prompt as it is routed here.
    pub(crate) fn prompt(&self, tokens: &[TokenId], seed: RoutingSeed) -> RoutedPrompt {
        match self.0.is_kv {
            true => RoutedPrompt::hashed(tokens, self.model().block_size, seed),
            false => RoutedPrompt::of_length(tokens.len()),
        }
    }

    /// Chooses a worker and books the prompt there. `max_tokens` is what the answer may have.
    pub(crate) fn choose(
        &self,
        prompt: &RoutedPrompt,
        max_tokens: Option<u32>,
        excluded: &[Place],
    ) -> Result<Placed, forebay_router::Error> {
        let inner = &*self.0;
        let random = inner.random.fetch_add(GOLDEN, Ordering::Relaxed);
        let id = inner.owner.next_booking();
        let mut request = Request::new(&prompt.chain, prompt.tokens as u64);
        request.expected_output_tokens =
            max_tokens.map(|most| inner.expected_output_tokens.min(most.into()));

        let mut state = inner.state.lock();
        let excluded = state.still_there(excluded);
        request.excluded = &excluded;
        let decision = state.router.reserve(&request, id, random)?;
        let worker = (state.workers.get(&decision.at.worker))
            .expect("the router knows the workers of the pool");
        let (incarnation, engine) = (worker.incarnation, worker.engine.clone());
        drop(state);
        inner.owner.booked(id, || SharedBooking {
            at: decision.at,
            chain: prompt.chain.clone(),
            blocks: inner.model.block_size.blocks_for(prompt.tokens) as u64,
            prompt_tokens: prompt.tokens as u64,
            prefill_tokens: decision.prefill_tokens,
            has_first_token: false,
        });
        Ok(Placed {
            place: Place {
                at: decision.at,
                incarnation,
            },
            engine,
            booking: Booking::new(self.clone(), id, prompt.tokens),
        })
    }

    pub(in crate::pool) fn first_token(&self, id: BookingId) {
        self.0.state.lock().router.first_token(id);
        self.0.owner.first_token(id);
    }

    pub(in crate::pool) fn grew(&self, id: BookingId, blocks: u64) {
        self.0.state.lock().router.grew(id, blocks);
        self.0.owner.grew(id, blocks);
    }

    pub(in crate::pool) fn release(&self, id: BookingId) {
        self.0.state.lock().router.release(id);
        self.0.owner.ended(id);
    }

    /// Makes a change of another owner's bookings.
    pub(crate) fn take(&self, change: &ReplicaChange) {
        self.0.state.lock().router.take(change);
    }
}

impl State {
    /// Those of these places that are there in the same life.
    fn still_there(&self, places: &[Place]) -> Vec<WorkerRank> {
        let is_there = |place: &&Place| {
            let worker = self.workers.get(&place.at.worker);
            worker.is_some_and(|worker| worker.incarnation == place.incarnation)
        };
        places
            .iter()
            .filter(is_there)
            .map(|place| place.at)
            .collect()
    }
}
