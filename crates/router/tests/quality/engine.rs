//! One engine in virtual time: continuous batching, chunked prefill, a prefix cache that evicts
//! what was used least recently.

use std::collections::VecDeque;
use std::time::Duration;

use forebay_perf_model::{Iteration, PerfModel};
use forebay_tokens::KvEvent;

use crate::cache::{Cache, Lease};
use crate::workload::Arrival;

pub(crate) const BLOCK_TOKENS: u64 = 64;
const MAX_BATCH_TOKENS: u64 = 8192;
const MAX_SEQUENCES: usize = 256;

pub(crate) struct Engine {
    model: PerfModel,
    cache: Cache,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    /// What the iteration that runs gives each running sequence, in their order.
    batch: Vec<u64>,
    pub(crate) prefilled_tokens: u64,
}

struct Sequence {
    id: usize,
    arrival: Arrival,
    lease: Lease,
    computed_tokens: u64,
    generated_tokens: u64,
}

/// What an iteration brought a request.
pub(crate) enum Progress {
    FirstToken,
    /// A block more of output.
    Grew,
    Done,
}

impl Engine {
    pub(crate) fn new(model: PerfModel, blocks: usize) -> Self {
        Self {
            model,
            cache: Cache::new(blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            batch: Vec::new(),
            prefilled_tokens: 0,
        }
    }

    pub(crate) fn submit(&mut self, id: usize, arrival: Arrival) {
        self.waiting.push_back(Sequence {
            id,
            arrival,
            lease: Lease::default(),
            computed_tokens: 0,
            generated_tokens: 0,
        });
    }

    /// Starts the next iteration: how long it takes, or `None` if there is nothing to do.
    pub(crate) fn start(&mut self) -> Option<Duration> {
        while let Some(mut next) = self.waiting.pop_front() {
            let blocks = (next.arrival.prompt_tokens + next.arrival.output_tokens)
                .div_ceil(BLOCK_TOKENS) as usize;
            let has_room = self.running.len() < MAX_SEQUENCES;
            let lease = has_room.then(|| self.cache.take(&next.arrival.chain, blocks));
            let Some(lease) = lease.flatten() else {
                self.waiting.push_front(next);
                break;
            };
            let cached = lease.named.len() as u64 * BLOCK_TOKENS;
            // The last token is computed in any case.
            next.computed_tokens = cached.min(next.arrival.prompt_tokens - 1);
            next.lease = lease;
            self.running.push(next);
        }
        if self.running.is_empty() {
            return None;
        }

        let mut work = Iteration::default();
        let decodes = self.running.iter().filter(|s| s.is_decoding()).count() as u64;
        let mut left = MAX_BATCH_TOKENS - decodes;
        self.batch.clear();
        for sequence in &self.running {
            let computed = sequence.computed_tokens;
            if sequence.is_decoding() {
                work += Iteration::decode(1, computed + sequence.generated_tokens);
                self.batch.push(1);
            } else {
                let chunk = left.min(sequence.arrival.prompt_tokens - computed);
                left -= chunk;
                work += Iteration::prefill(computed..computed + chunk);
                self.batch.push(chunk);
            }
        }
        self.prefilled_tokens += work.prefill_tokens;
        Some(self.model.iteration_time(&work))
    }

    /// The iteration is over.
    pub(crate) fn finish(&mut self) -> Vec<(usize, Progress)> {
        let mut progress = Vec::new();
        let batch = std::mem::take(&mut self.batch);
        let mut tokens = batch.iter();
        self.running.retain_mut(|sequence| {
            let tokens = *tokens.next().expect("each has its part of the batch");
            let arrival = &sequence.arrival;
            if sequence.computed_tokens < arrival.prompt_tokens {
                sequence.computed_tokens += tokens;
                if sequence.computed_tokens < arrival.prompt_tokens {
                    return true;
                }
                self.cache.name(&mut sequence.lease, &arrival.chain);
                progress.push((sequence.id, Progress::FirstToken));
            } else if (sequence.computed_tokens + sequence.generated_tokens) % BLOCK_TOKENS == 0 {
                progress.push((sequence.id, Progress::Grew));
            }
            sequence.generated_tokens += 1;
            let done = sequence.generated_tokens >= arrival.output_tokens;
            if done {
                self.cache.give_back(std::mem::take(&mut sequence.lease));
                progress.push((sequence.id, Progress::Done));
            }
            !done
        });
        progress
    }

    pub(crate) fn take_events(&mut self) -> Vec<KvEvent> {
        self.cache.take_events()
    }
}

impl Sequence {
    fn is_decoding(&self) -> bool {
        self.computed_tokens == self.arrival.prompt_tokens
    }
}
