use std::time::Duration;

use forebay_tokens::{BlockSize, KvEvent};
use rustc_hash::FxHashMap;

use crate::book::Slot;
use crate::selection::{Draws, Terms};
use crate::{
    Booking, BookingId, Candidate, ConfigError, Cost, Decision, Eligibility, Error, FlatIndex,
    Load, LoadBook, Mode, Overlap, OwnerId, PrefixIndex, Request, RouterConfig, Selector,
    WorkerRank, WorkerSpec,
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

/// What the workers have of a prompt, by their positions.
struct Prefixes {
    /// The better of what their events told and what runs there.
    overlaps: Vec<Overlap>,
    /// Blocks of it that are in use there.
    in_use: Vec<u32>,
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
            book: LoadBook::new(Some(config.booking_lifetime()?)),
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

    /// Forgets what a worker's events told: they are about to be told from the beginning.
    pub fn forget_blocks(&mut self, at: WorkerRank) {
        self.index.remove(at);
    }

    /// Everything an owner booked ended: that life of it is over. Returns how many bookings these
    /// were.
    pub fn release_owner(&mut self, owner: OwnerId) -> usize {
        self.book.end_owner(owner)
    }

    /// Ends what was booked [`RouterConfig::booking_lifetime_seconds`] before `now` or earlier:
    /// whoever should have ended it did not. To be called every now and then. Returns how many
    /// bookings these were.
    pub fn expire(&mut self, now: Duration) -> usize {
        self.book.expire(now)
    }

    /// The workers and what is booked at each, in the order of their ids.
    pub fn workers(&self) -> impl ExactSizeIterator<Item = (WorkerRank, Load)> {
        let load = |worker: &Worker| (worker.at, self.book.load_in(worker.slot));
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

    fn prefixes(&self, request: &Request<'_>) -> Prefixes {
        let mut overlaps = vec![Overlap::default(); self.workers.len()];
        let mut in_use = vec![0; self.workers.len()];
        for found in self.index.matches(request.chain) {
            if let Some(&position) = self.positions.get(&found.at) {
                overlaps[position] = found.overlap;
            }
        }
        let credit = |overlap| self.config.weights.credit(overlap);
        for found in self.book.matches(request.chain) {
            let Some(&position) = self.positions.get(&found.at) else {
                continue;
            };
            in_use[position] = found.overlap.blocks();
            let overlap = &mut overlaps[position];
            if self.config.credit_running_requests && credit(found.overlap) > credit(*overlap) {
                *overlap = found.overlap;
            }
        }
        Prefixes { overlaps, in_use }
    }

    /// Prompt tokens to compute; the last one always is.
    fn uncached_tokens(&self, request: &Request<'_>, overlap: Overlap) -> u64 {
        let block_tokens = self.block_size.get() as f64;
        let cached = (self.config.weights.credit(overlap) * block_tokens) as u64;
        request.prompt_tokens.saturating_sub(cached).max(1)
    }

    fn terms(&self, request: &Request<'_>, prefixes: &Prefixes, position: usize) -> Terms {
        let blocks = self.prompt_blocks(request);
        Terms {
            block_size_tokens: self.block_size.get() as u64,
            prompt_tokens: request.prompt_tokens.max(1),
            uncached_tokens: self.uncached_tokens(request, prefixes.overlaps[position]),
            expected_output_tokens: request
                .expected_output_tokens
                .unwrap_or(self.config.expected_output_tokens),
            new_blocks: blocks.saturating_sub(u64::from(prefixes.in_use[position])),
            load: self.book.load_in(self.workers[position].slot),
        }
    }

    fn prompt_blocks(&self, request: &Request<'_>) -> u64 {
        let block_tokens = self.block_size.get() as u64;
        request
            .prompt_tokens
            .div_ceil(block_tokens)
            .max(request.chain.len() as u64)
    }

    fn cost(&self, request: &Request<'_>, prefixes: &Prefixes, at: usize, timed: bool) -> Cost {
        let terms = self.terms(request, prefixes, at);
        let weights = &self.config.weights;
        match &self.workers[at].spec.perf_model {
            Some(model) if timed => terms.in_seconds(weights, model),
            _ => terms.in_blocks(weights),
        }
    }

    /// Whether all of these workers' times can be predicted.
    fn are_timed(&self, positions: &[usize]) -> bool {
        (positions.iter()).all(|position| self.workers[*position].spec.perf_model.is_some())
    }

    fn eligibility(&self, request: &Request<'_>, worker: &Worker) -> Eligibility {
        if request.target.is_some_and(|target| target != worker.at) {
            Eligibility::NotTarget
        } else if worker.draining {
            Eligibility::Draining
        } else if request.excluded.contains(&worker.at) {
            Eligibility::Excluded
        } else {
            Eligibility::Eligible
        }
    }

    /// The positions of the workers the request may go to; at least one.
    fn eligible(&self, request: &Request<'_>, mode: Mode) -> Result<Vec<usize>, Error> {
        if self.workers.is_empty() {
            return Err(Error::NoWorkers);
        }
        if let Some(at) = request.target {
            let position = *self.positions.get(&at).ok_or(Error::UnknownTarget(at))?;
            return match self.eligibility(request, &self.workers[position]) {
                Eligibility::Eligible => Ok(vec![position]),
                eligibility => Err(Error::TargetNotEligible { at, eligibility }),
            };
        }
        if mode == Mode::Direct {
            return Err(Error::NoTarget);
        }
        let mut eligible = Vec::with_capacity(self.workers.len());
        let (mut draining, mut excluded) = (0, 0);
        for (position, worker) in self.workers.iter().enumerate() {
            match self.eligibility(request, worker) {
                Eligibility::Eligible => eligible.push(position),
                Eligibility::Draining => draining += 1,
                Eligibility::Excluded | Eligibility::NotTarget => excluded += 1,
            }
        }
        match eligible.is_empty() {
            false => Ok(eligible),
            true => Err(Error::NoneEligible {
                workers: self.workers.len(),
                draining,
                excluded,
            }),
        }
    }

    /// Chooses among workers; these are at least one.
    fn choose(
        &self,
        request: &Request<'_>,
        mode: Mode,
        prefixes: &Prefixes,
        eligible: &[usize],
        random: u64,
    ) -> usize {
        let mut draws = Draws::new(random);
        let load = |position: usize| self.book.load_in(self.workers[position].slot);
        match mode {
            _ if eligible.len() == 1 => eligible[0],
            Mode::RoundRobin => {
                let is_next = |position: &&usize| Some(self.workers[**position].at) > self.last;
                *eligible.iter().find(is_next).unwrap_or(&eligible[0])
            }
            Mode::Random | Mode::Direct => eligible[draws.below(eligible.len())],
            Mode::PowerOfTwo => {
                let first = draws.below(eligible.len());
                let other = draws.below(eligible.len() - 1);
                let second = if other < first { other } else { other + 1 };
                let pair = [eligible[first], eligible[second]];
                // The order in which they were drawn decides a tie.
                *pair
                    .iter()
                    .min_by_key(|position| load(**position).requests)
                    .expect("it is a pair")
            }
            Mode::LeastLoaded => {
                let keys = eligible.iter().map(|position| {
                    let load = load(*position);
                    (load.requests, load.prefill_tokens, load.used_blocks)
                });
                eligible[draws.least(keys)]
            }
            Mode::Kv => {
                let timed = self.are_timed(eligible);
                let costs = (eligible.iter())
                    .map(|position| self.cost(request, prefixes, *position, timed).total());
                eligible[draws.least(costs)]
            }
        }
    }

    fn candidates(&self, request: &Request<'_>, prefixes: &Prefixes) -> Vec<Candidate> {
        let is_eligible =
            |worker: &Worker| self.eligibility(request, worker) == Eligibility::Eligible;
        let timed = (self.workers.iter())
            .filter(|worker| is_eligible(worker))
            .all(|worker| worker.spec.perf_model.is_some());
        (self.workers.iter().enumerate())
            .map(|(position, worker)| Candidate {
                at: worker.at,
                eligibility: self.eligibility(request, worker),
                overlap: prefixes.overlaps[position],
                load: self.book.load_in(worker.slot),
                cost: self.cost(request, prefixes, position, timed),
            })
            .collect()
    }
}

impl<I: PrefixIndex> Selector for Router<I> {
    fn select(&self, request: &Request<'_>, random: u64) -> Result<Decision, Error> {
        let mode = request.mode.unwrap_or(self.config.mode);
        let eligible = self.eligible(request, mode)?;
        let prefixes = self.prefixes(request);
        let position = self.choose(request, mode, &prefixes, &eligible, random);
        let overlap = prefixes.overlaps[position];
        Ok(Decision {
            at: self.workers[position].at,
            mode,
            overlap,
            prefill_tokens: self.uncached_tokens(request, overlap),
            candidates: match request.explain {
                true => self.candidates(request, &prefixes),
                false => Vec::new(),
            },
        })
    }

    fn reserve(
        &mut self,
        request: &Request<'_>,
        booking: BookingId,
        now: Duration,
        random: u64,
    ) -> Result<Decision, Error> {
        self.book.end(booking);
        let decision = self.select(request, random)?;
        if decision.mode == Mode::RoundRobin {
            self.last = Some(decision.at);
        }
        let booked = Booking {
            at: decision.at,
            chain: request.chain,
            blocks: self.prompt_blocks(request),
            prompt_tokens: request.prompt_tokens,
            prefill_tokens: decision.prefill_tokens,
        };
        self.book.book(booking, booked, now);
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
        self.candidates(request, &self.prefixes(request))
    }
}
