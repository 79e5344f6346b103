mod choosing;

use forebay_tokens::{BlockSize, KvEvent};
use rustc_hash::FxHashMap;

use crate::book::Slot;
use crate::{
    Booking, BookingId, Candidate, ConfigError, Decision, Error, FlatIndex, Load, LoadBook, Mode,
    OwnerId, PrefixIndex, ReplicaChange, Request, RouterConfig, Selector, WorkerRank, WorkerSpec,
};

/// Chooses workers: what each has cached, what is booked at each, and a rule to compare them.
///
/// It is told which workers there are and what their KV events say, and through [`Selector`] what
/// becomes of the requests. It has no clock and no random numbers of its own.
#[derive(Debug)]
pub struct Router<I = FlatIndex> {
    config: RouterConfig,
    block_size: BlockSize,
    index: I,
    book: LoadBook,
    /// In the order of their ids.
    workers: Vec<Worker>,
    positions: FxHashMap<WorkerRank, usize>,
    /// Who was last in the mode round-robin.
    last: Option<WorkerRank>,
}

#[derive(Debug)]
struct Worker {
    at: WorkerRank,
    spec: WorkerSpec,
    draining: bool,
    slot: Slot,
}

impl Router {
    /// A router for one model, whose KV blocks have `block_size` tokens, without workers.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a setting that is out of its range.
    pub fn new(config: RouterConfig, block_size: BlockSize) -> Result<Self, ConfigError> {
        config.check()?;
        let index = FlatIndex::new(config.max_index_bytes);
        Self::with_index(config, block_size, index)
    }
}

impl<I: PrefixIndex> Router<I> {
    /// A router over an index of the caller's.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a setting that is out of its range.
    pub fn with_index(
        config: RouterConfig,
        block_size: BlockSize,
        index: I,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            book: LoadBook::new(),
            config,
            block_size,
            index,
            workers: Vec::new(),
            positions: FxHashMap::default(),
            last: None,
        })
    }

    /// Adds a worker's rank. One that is there already gets the new `spec`, and drains no more.
    pub fn add_worker(&mut self, at: WorkerRank, spec: WorkerSpec) {
        match self.positions.get(&at) {
            Some(&position) => {
                let worker = &mut self.workers[position];
                worker.spec = spec;
                worker.draining = false;
            }
            None => {
                let position = self.workers.partition_point(|worker| worker.at < at);
                let worker = Worker {
                    at,
                    spec,
                    draining: false,
                    slot: self.book.hold(at),
                };
                self.workers.insert(position, worker);
                self.index_positions();
            }
        }
    }

    /// A worker takes no new requests: what runs there goes on, and its events still count.
    /// Whether it is known.
    pub fn drain_worker(&mut self, at: WorkerRank) -> bool {
        let position = self.positions.get(&at);
        if let Some(&position) = position {
            self.workers[position].draining = true;
        }
        position.is_some()
    }

    /// A worker is gone, and its cache with it; whether it was known. What is booked there ends as
    /// its requests end, and counts again should the worker return before.
    pub fn remove_worker(&mut self, at: WorkerRank) -> bool {
        let Some(position) = self.positions.remove(&at) else {
            return false;
        };
        let worker = self.workers.remove(position);
        self.index_positions();
        self.book.let_go(worker.slot);
        self.index.remove(at);
        true
    }

    /// Takes a worker's KV event; whether the worker is known. That of one that is not is of one
    /// that is gone, and is dropped: add a worker first.
    pub fn apply(&mut self, at: WorkerRank, event: &KvEvent) -> bool {
        let is_known = self.positions.contains_key(&at);
        if is_known {
            self.index.apply(at, event);
        }
        is_known
    }

    /// Forgets what a worker's events told: its state is about to be told from the beginning.
    pub fn forget_blocks(&mut self, at: WorkerRank) {
        self.index.remove(at);
    }

    /// Makes a change that another router told of.
    pub fn take(&mut self, change: &ReplicaChange) {
        match change {
            ReplicaChange::Booked(id, booking) => {
                let booked = Booking {
                    at: booking.at,
                    chain: &booking.chain,
                    blocks: booking.blocks,
                    prompt_tokens: booking.prompt_tokens,
                    prefill_tokens: booking.prefill_tokens,
                };
                self.book.book(*id, booked);
                if booking.has_first_token {
                    self.book.first_token(*id);
                }
            }
            ReplicaChange::FirstToken(id, _) => self.book.first_token(*id),
            ReplicaChange::Grew(id, _, blocks) => self.book.grew(*id, *blocks),
            ReplicaChange::Ended(id, _) => {
                self.book.end(*id);
            }
        }
    }

    /// Everything an owner booked ended: that life of it is over. Returns how many bookings these
    /// were.
    pub fn release_owner(&mut self, owner: OwnerId) -> usize {
        self.book.end_owner(owner)
    }

    /// The workers and what is booked at each, in the order of their ids.
    pub fn workers(&self) -> impl ExactSizeIterator<Item = (WorkerRank, Load)> {
        let load = |worker: &Worker| (worker.at, *self.book.load_in(worker.slot));
        self.workers.iter().map(load)
    }

    /// What is booked.
    pub fn book(&self) -> &LoadBook {
        &self.book
    }

    /// What is cached.
    pub fn index(&self) -> &I {
        &self.index
    }

    fn index_positions(&mut self) {
        let positions = self.workers.iter().enumerate();
        self.positions = positions.map(|(n, worker)| (worker.at, n)).collect();
    }
}

impl<I: PrefixIndex> Selector for Router<I> {
    fn select(&self, request: &Request<'_>, random: u64) -> Result<Decision, Error> {
        let mode = request.mode.unwrap_or(self.config.mode);
        let eligible = self.eligible(request, mode)?;
        let pricing = self.pricing(request);
        let overlaps = self.overlaps(request);
        let position = self.choose(mode, &eligible, &pricing, &overlaps, random);
        let overlap = overlaps[position];
        Ok(Decision {
            at: self.workers[position].at,
            mode,
            overlap,
            prefill_tokens: pricing.uncached_tokens(overlap),
            candidates: match request.explain {
                true => self.candidates(request, &pricing, &overlaps),
                false => Vec::new(),
            },
        })
    }

    fn reserve(
        &mut self,
        request: &Request<'_>,
        booking: BookingId,
        random: u64,
    ) -> Result<Decision, Error> {
        self.book.end(booking);
        let decision = self.select(request, random)?;
        if decision.mode == Mode::RoundRobin && request.target.is_none() {
            self.last = Some(decision.at);
        }
        let booked = Booking {
            at: decision.at,
            chain: request.chain,
            blocks: self.pricing(request).prompt_blocks,
            prompt_tokens: request.prompt_tokens,
            prefill_tokens: decision.prefill_tokens,
        };
        self.book.book(booking, booked);
        Ok(decision)
    }

    fn first_token(&mut self, booking: BookingId) {
        self.book.first_token(booking);
    }

    fn grew(&mut self, booking: BookingId, blocks: u64) {
        self.book.grew(booking, blocks);
    }

    fn release(&mut self, booking: BookingId) {
        self.book.end(booking);
    }

    fn explain(&self, request: &Request<'_>) -> Vec<Candidate> {
        self.candidates(request, &self.pricing(request), &self.overlaps(request))
    }
}
