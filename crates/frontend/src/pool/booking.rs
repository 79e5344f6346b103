use forebay_router::BookingId;

use super::WorkerPool;

/// What is booked at a worker for one attempt, until it is dropped.
#[derive(Debug)]
pub(crate) struct Booking {
    pool: WorkerPool,
    id: BookingId,
    /// The tokens of the sequence so far.
    tokens: usize,
    /// How many it may have before it takes another block.
    booked_tokens: usize,
    begun: bool,
}

impl Booking {
    /// What was booked for a sequence of this length.
    pub(super) fn new(pool: WorkerPool, id: BookingId, tokens: usize) -> Self {
        let block_size = pool.model().block_size;
        Self {
            pool,
            id,
            tokens,
            booked_tokens: block_size.blocks_for(tokens) * block_size.get(),
            begun: false,
        }
    }

    /// The worker generated tokens.
    pub(crate) fn generated(&mut self, tokens: usize) {
        if tokens == 0 {
            return;
        }
        if !self.begun {
            self.begun = true;
            self.pool.first_token(self.id);
        }
        self.tokens += tokens;
        if self.tokens > self.booked_tokens {
            let block_size = self.pool.model().block_size;
            let blocks = block_size.blocks_for(self.tokens - self.booked_tokens);
            self.booked_tokens += blocks * block_size.get();
            self.pool.grew(self.id, blocks as u64);
        }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.pool.release(self.id);
    }
}
