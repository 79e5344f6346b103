use forebay_kv_block_manager::{BlockPool, Demand, Retention};
use forebay_tokens::{BlockSize, CacheGroup};
use rustc_hash::FxHashMap;

use crate::in_progress::InProgress;
use crate::sequence::{Rank, Sequence};
use crate::waiting::Waiting;
use crate::{
    Batch, BatchItem, ConfigError, Finish, Load, NewSequence, Progress, Rejected, Rejection,
    Sampled, SchedulerConfig, SequenceId,
};

/// The cache group that sequences are scheduled over.
const GROUP: CacheGroup = CacheGroup(0);

/// Continuous batching over a block pool.
///
/// A pure state machine: the caller runs the loop [`schedule`](Self::schedule), compute,
/// [`complete`](Self::complete). The same calls give the same batches, as long as nobody else uses
/// the pool.
///
/// The rules:
///
/// - One order decides everywhere: lower [`Priority`](crate::Priority) first, then earlier arrival.
///   The first running sequence is never preempted, so there is always one that gets on.
/// - A batch takes every decode, then chunks of running prefills, then new sequences, up to its
///   token budget.
/// - A sequence is admitted with blocks for all of its tokens, when after that each running
///   sequence could still get one more. If the first in line does not fit, nobody passes it.
/// - It starts after its longest cached prefix; at least its last token is computed.
/// - If the next block it would compute is being computed by a running sequence, it waits for that
///   and others may pass. What it waits for is always in the hands of a running sequence: when that
///   one is aborted or preempted, the wait is over.
/// - When a decode finds no block, the last running sequence is preempted: its blocks go, its
///   tokens stay, and it waits in its old place. Its full blocks stay in the cache while they can.
///   Nobody is admitted in that batch.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    block_size: BlockSize,
    ranks: FxHashMap<SequenceId, Rank>,
    /// In order of rank.
    running: Vec<Sequence>,
    waiting: Waiting,
    in_progress: InProgress,
    /// Aborted while a batch was computed that may still write to their blocks.
    aborted: Vec<Sequence>,
    arrivals: u64,
    /// The number of the last batch, and whether it is being computed.
    step: u64,
    is_computing: bool,
}

impl Scheduler {
    /// A scheduler without sequences.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a bound would let nothing run, or the pool has several cache groups or
    /// one that does not keep whole prefixes.
    pub fn new(config: SchedulerConfig, pool: BlockPool) -> Result<Self, ConfigError> {
        config.check()?;
        let [group] = pool.config().groups[..] else {
            return Err(ConfigError::CacheGroups);
        };
        if group.spec.retention != Retention::All {
            return Err(ConfigError::CacheGroups);
        }
        Ok(Self {
            config,
            pool,
            block_size: group.spec.block_size,
            ranks: FxHashMap::default(),
            running: Vec::new(),
            waiting: Waiting::default(),
            in_progress: InProgress::default(),
            aborted: Vec::new(),
            arrivals: 0,
            step: 0,
            is_computing: false,
        })
    }

    /// The bounds it keeps.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// The pool it takes blocks from.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// The most tokens a sequence can have, prompt and generated together: what the context and
    /// the pool allow. The last token of a sequence needs no KV.
    pub fn max_sequence_tokens(&self) -> usize {
        let total_blocks = self.pool.config().groups[0].n_blocks as usize;
        let kv_tokens = total_blocks * self.block_size.get();
        self.config.context_length.min(kv_tokens + 1)
    }

    /// Takes a sequence into the waiting line.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the reason and the sequence as it was.
    pub fn submit(&mut self, sequence: NewSequence) -> Result<(), Rejected> {
        if let Err(reason) = self.check(&sequence) {
            return Err(Rejected {
                reason,
                sequence: Box::new(sequence),
            });
        }
        let sequence = Sequence::new(sequence, self.arrivals);
        self.arrivals += 1;
        self.ranks.insert(sequence.id(), sequence.rank());
        self.waiting.insert(sequence);
        Ok(())
    }

    fn check(&self, new: &NewSequence) -> Result<(), Rejection> {
        let (emitted, max_new_tokens) = (new.emitted.len(), new.max_new_tokens);
        if self.ranks.contains_key(&new.id) {
            return Err(Rejection::DuplicateId);
        }
        if !new.chain.is_empty() || new.chain.block_size() != self.block_size {
            return Err(Rejection::Chain);
        }
        if new.prompt.is_empty() {
            return Err(Rejection::EmptyPrompt);
        }
        if emitted >= max_new_tokens {
            return Err(Rejection::NothingToGenerate {
                max_new_tokens,
                emitted,
            });
        }
        let tokens = new.prompt.len().saturating_add(max_new_tokens);
        let context_length = self.config.context_length;
        if tokens > context_length {
            return Err(Rejection::ContextLength {
                tokens,
                context_length,
            });
        }
        let needed_blocks = self.block_size.blocks_for(tokens - 1);
        let total_blocks = self.pool.config().groups[0].n_blocks as usize;
        if needed_blocks > total_blocks {
            return Err(Rejection::NeverFits {
                needed_blocks,
                total_blocks,
            });
        }
        let waiting = self.waiting.len();
        if waiting >= self.config.max_waiting {
            return Err(Rejection::QueueFull { waiting });
        }
        Ok(())
    }

    /// Forgets a sequence; `false` if there is none of this id. Its blocks go back to the pool at
    /// once, or when the batch that is being computed is completed.
    pub fn abort(&mut self, id: SequenceId) -> bool {
        let Some(rank) = self.ranks.get(&id).copied() else {
            return false;
        };
        self.ranks.remove(&id);
        match self.position(rank) {
            Some(at) => {
                let sequence = self.take_running(at);
                if self.is_computing {
                    self.aborted.push(sequence);
                }
            }
            None => drop(self.waiting.remove(rank)),
        }
        true
    }

    /// A sequence that is running or waiting.
    pub fn sequence(&self, id: SequenceId) -> Option<&Sequence> {
        let rank = *self.ranks.get(&id)?;
        match self.position(rank) {
            Some(at) => Some(&self.running[at]),
            None => self.waiting.get(rank),
        }
    }

    /// Whether there is nothing to do: no sequence, and no aborted one whose blocks the next
    /// [`schedule`](Self::schedule) or [`complete`](Self::complete) would give back.
    pub fn is_idle(&self) -> bool {
        self.ranks.is_empty() && self.aborted.is_empty()
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        let blocks = self.pool.stats(GROUP);
        let uncomputed = self.running.iter().map(|sequence| sequence.n_uncomputed());
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            prefill_tokens: uncomputed.filter(|n| *n > 1).sum::<usize>() + self.waiting.tokens(),
            active_blocks: blocks.active,
            cached_blocks: blocks.cached,
            total_blocks: blocks.total,
        }
    }

    /// Plans the next batch.
    ///
    /// If the previous batch was not completed, it counts as not computed, and its parts are
    /// planned again; by calling this the caller says that nothing writes to its blocks any more.
    pub fn schedule(&mut self) -> Batch {
        self.aborted.clear();
        self.step += 1;
        let mut batch = Batch {
            step: self.step,
            items: Vec::with_capacity(self.running.len()),
            preempted: Vec::new(),
        };
        self.plan_decodes(&mut batch);
        let mut budget = self.config.max_batch_tokens - batch.items.len();
        self.plan_prefills(&mut batch, &mut budget);
        if batch.preempted.is_empty() {
            self.admit(&mut batch, &mut budget);
        }
        self.is_computing = !batch.is_empty();
        batch
    }

    fn plan_decodes(&mut self, batch: &mut Batch) {
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &self.running[at];
            if sequence.n_uncomputed() > 1 {
                at += 1;
            } else if self.ensure_blocks(at) {
                batch.items.push(item(&self.running[at], 1));
                at += 1;
            } else {
                // Itself, if it is the last: it then ends this loop.
                let mut last = self.take_running(self.running.len() - 1);
                last.preempt();
                batch.preempted.push(last.id());
                self.waiting.insert(last);
            }
        }
    }

    fn ensure_blocks(&mut self, at: usize) -> bool {
        let sequence = &mut self.running[at];
        match sequence.n_missing_blocks() {
            0 => true,
            n => match self.pool.allocate(GROUP, n) {
                Ok(blocks) => {
                    sequence.grow(blocks);
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn plan_prefills(&mut self, batch: &mut Batch, budget: &mut usize) {
        for sequence in &self.running {
            let n = sequence.n_uncomputed();
            if n > 1 && *budget > 0 {
                let n = n.min(self.config.max_chunk_tokens).min(*budget);
                *budget -= n;
                batch.items.push(item(sequence, n));
            }
        }
    }

    fn admit(&mut self, batch: &mut Batch, budget: &mut usize) {
        while self.running.len() < self.config.max_sequences && *budget > 0 {
            let Some(sequence) = self.next_admitted() else {
                return;
            };
            self.in_progress.add(sequence.unregistered());
            let n = sequence.n_uncomputed();
            let n = n.min(self.config.max_chunk_tokens).min(*budget);
            *budget -= n;
            batch.items.push(item(&sequence, n));
            let at = self
                .running
                .partition_point(|other| other.rank() < sequence.rank());
            self.running.insert(at, sequence);
        }
    }

    /// Takes the first sequence that waits for nothing but blocks out of the line, if it gets them.
    fn next_admitted(&mut self) -> Option<Sequence> {
        let rank = self.first_ready()?;
        let sequence = self.waiting.get(rank)?;
        let demand = Demand {
            prefix: sequence.matchable(),
            n_blocks: self.block_size.blocks_for(sequence.tokens().len()),
            n_spare: self.running.len(),
        };
        let blocks = self.pool.acquire(GROUP, demand).ok()?;
        let mut sequence = self.waiting.remove(rank)?;
        sequence.admit(blocks);
        Some(sequence)
    }

    /// The first sequence in line whose next block nobody computes at the moment. As many are
    /// looked at as could ever run, so that a long line does not make a step long.
    fn first_ready(&mut self) -> Option<Rank> {
        let Self {
            pool, in_progress, ..
        } = self;
        self.waiting
            .first(self.config.max_sequences)
            .find_map(|sequence| {
                if sequence.awaited().is_some_and(|b| in_progress.contains(b)) {
                    return None;
                }
                let prefix = sequence.matchable();
                let next = prefix.get(pool.prefix_len(GROUP, prefix));
                let awaited = next.map(|b| b.content).filter(|b| in_progress.contains(b));
                sequence.set_awaited(awaited);
                awaited.is_none().then(|| sequence.rank())
            })
    }

    /// Takes in what the last batch computed: `sampled` has one token for each part that
    /// [`samples`](BatchItem::samples), in order. Gives what became of each part; sequences that
    /// were aborted meanwhile are left out. Finished ones are gone, and their full blocks cached.
    ///
    /// # Panics
    ///
    /// If `batch` is not the one that the last [`schedule`](Self::schedule) gave, or `sampled` is
    /// not one token for each part that samples.
    pub fn complete(&mut self, batch: Batch, sampled: &[Sampled]) -> Vec<Progress> {
        assert_eq!(
            batch.step, self.step,
            "only the last batch can be completed"
        );
        assert_eq!(
            batch.n_samples(),
            sampled.len(),
            "one token for each sample"
        );
        self.is_computing = false;
        self.aborted.clear();
        let mut sampled = sampled.iter();
        let mut progress = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            let sampled = if item.samples { sampled.next() } else { None };
            let rank = self.ranks.get(&item.id);
            if let Some(at) = rank.and_then(|rank| self.position(*rank)) {
                progress.push(self.advance(at, item, sampled));
            }
        }
        progress
    }

    fn advance(&mut self, at: usize, item: &BatchItem, sampled: Option<&Sampled>) -> Progress {
        let sequence = &mut self.running[at];
        let n_registered = sequence.registered_blocks().len();
        sequence.advance(item.tokens.end);
        let computed = n_registered..sequence.registered_blocks().len();
        self.in_progress.remove(&sequence.identities()[computed]);

        let mut finish = None;
        if let Some(sampled) = sampled {
            let n_full = sequence.identities().len();
            sequence.push(sampled.token);
            self.in_progress.add(&sequence.identities()[n_full..]);
            finish = if sampled.stop {
                Some(Finish::Stop)
            } else if sequence.is_at_limit() {
                Some(Finish::Length)
            } else {
                None
            };
        }
        if finish.is_some() {
            self.take_running(at);
            self.ranks.remove(&item.id);
        }
        Progress {
            id: item.id,
            token: sampled.map(|sampled| sampled.token),
            finish,
        }
    }

    fn position(&self, rank: Rank) -> Option<usize> {
        self.running
            .binary_search_by_key(&rank, |sequence| sequence.rank())
            .ok()
    }

    fn take_running(&mut self, at: usize) -> Sequence {
        let sequence = self.running.remove(at);
        self.in_progress.remove(sequence.unregistered());
        sequence
    }
}

fn item(sequence: &Sequence, n_tokens: usize) -> BatchItem {
    let start = sequence.n_computed();
    let end = start + n_tokens;
    BatchItem {
        id: sequence.id(),
        tokens: start..end,
        samples: end == sequence.tokens().len(),
        cached_tokens: sequence.cached_tokens(),
    }
}
