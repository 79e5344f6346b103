use forebay_perf_model::{Iteration, PerfModel};

use crate::{Load, Weights};

/// What a request costs at a worker: the sum of its terms, less is better.
///
/// The prompt's uncached tokens are those beyond the overlap, whose blocks in lower tiers count
/// by their credits ([`Weights`]); at least one.
///
/// In **blocks**:
///
/// ```text
/// queue   = weights.queue   * (prefill tokens booked and not done) / block size
/// prefill = weights.prefill * (uncached tokens) / block size
/// decode  = weights.decode  * (blocks in use, and the prompt's that are not among them)
/// ```
///
/// In **seconds**, where every worker that the request may go to has a
/// [`PerfModel`] `time`, with `decodes` what the worker's requests decode in one iteration:
///
/// ```text
/// queue   = weights.queue   * (time(booked prefill + own prefill + decodes) - time(own prefill + decodes))
/// prefill = weights.prefill * time(own prefill + decodes)
/// decode  = weights.decode  * (expected output tokens) * time(decodes + own decode)
/// ```
///
/// With weights of 1 that is a prediction of when the request is done: it waits for the prefill
/// before it, is computed among the decodes that run, and decodes with them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// What the terms count.
    pub unit: CostUnit,
    /// Waiting for the prefill of others.
    pub queue: f64,
    /// Its own prefill.
    pub prefill: f64,
    /// Its decode, among the others'.
    pub decode: f64,
}

/// What a [`Cost`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CostUnit {
    /// KV blocks.
    #[default]
    Blocks,
    /// Seconds.
    Seconds,
}

impl Cost {
    /// The sum of the terms.
    pub fn total(&self) -> f64 {
        self.queue + self.prefill + self.decode
    }
}

/// What a cost depends on, of the request and the worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) block_size_tokens: u64,
    pub(crate) prompt_tokens: u64,
    /// Prompt tokens to compute, after credits; 1 to `prompt_tokens`.
    pub(crate) uncached_tokens: u64,
    pub(crate) expected_output_tokens: u64,
    /// Blocks the prompt takes that are not in use yet.
    pub(crate) new_blocks: u64,
    pub(crate) load: Load,
}

impl Terms {
    pub(crate) fn in_blocks(&self, weights: &Weights) -> Cost {
        let blocks = |tokens: u64| tokens as f64 / self.block_size_tokens as f64;
        Cost {
            unit: CostUnit::Blocks,
            queue: weights.queue * blocks(self.load.prefill_tokens),
            prefill: weights.prefill * blocks(self.uncached_tokens),
            decode: weights.decode * (self.load.used_blocks + self.new_blocks) as f64,
        }
    }

    pub(crate) fn in_seconds(&self, weights: &Weights, model: &PerfModel) -> Cost {
        let seconds = |work: Iteration| model.iteration_time(&work).as_secs_f64();
        let Load {
            requests,
            prefill_tokens,
            prefill_context_tokens,
            context_blocks,
            ..
        } = self.load;
        let decodes = Iteration::decode(requests, context_blocks * self.block_size_tokens);
        let booked = Iteration {
            prefill_tokens,
            prefill_context_tokens,
            ..Iteration::default()
        };
        let cached_tokens = self.prompt_tokens - self.uncached_tokens;
        let own = Iteration::prefill(cached_tokens..self.prompt_tokens) + decodes;
        let own_seconds = seconds(own);
        let queue = match booked.is_empty() {
            true => 0.0,
            false => seconds(own + booked) - own_seconds,
        };
        // Over its output the request's own context is on average half of that longer.
        let context_tokens = self.prompt_tokens + self.expected_output_tokens / 2;
        let step = seconds(decodes + Iteration::decode(1, context_tokens));
        Cost {
            unit: CostUnit::Seconds,
            queue: weights.queue * queue,
            prefill: weights.prefill * own_seconds,
            decode: weights.decode * self.expected_output_tokens as f64 * step,
        }
    }
}
