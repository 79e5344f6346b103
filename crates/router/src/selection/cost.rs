use forebay_perf_model::{Iteration, PerfModel};

use crate::{Load, Overlap, Weights};

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

/// What costs depend on, of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pricing<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) block_size_tokens: u64,
    /// At least 1.
    pub(crate) prompt_tokens: u64,
    pub(crate) prompt_blocks: u64,
    pub(crate) expected_output_tokens: u64,
}

/// What a worker has of a request's prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefix {
    /// The better of what its events told and what runs there.
    pub(crate) overlap: Overlap,
    /// Blocks that are in use.
    pub(crate) blocks_in_use: u32,
}

impl Pricing<'_> {
    /// Prompt tokens to compute, after credits; the last one always is.
    pub(crate) fn uncached_tokens(&self, overlap: Overlap) -> u64 {
        let cached = self.weights.credit(overlap) * self.block_size_tokens as f64;
        self.prompt_tokens.saturating_sub(cached as u64).max(1)
    }

    pub(crate) fn in_blocks(&self, prefix: &Prefix, load: &Load) -> Cost {
        let blocks = |tokens: u64| tokens as f64 / self.block_size_tokens as f64;
        let uncached_tokens = self.uncached_tokens(prefix.overlap);
        let in_use = u64::from(prefix.blocks_in_use);
        let used_blocks = load.used_blocks + self.prompt_blocks.saturating_sub(in_use);
        Cost {
            unit: CostUnit::Blocks,
            queue: self.weights.queue * blocks(load.prefill_tokens),
            prefill: self.weights.prefill * blocks(uncached_tokens),
            decode: self.weights.decode * used_blocks as f64,
        }
    }

    pub(crate) fn in_seconds(&self, prefix: &Prefix, load: &Load, model: &PerfModel) -> Cost {
        let seconds = |work: Iteration| model.iteration_time(&work).as_secs_f64();
        let context_tokens = load.context_blocks * self.block_size_tokens;
        let decodes = Iteration::decode(load.requests, context_tokens);
        let booked = Iteration {
            prefill_tokens: load.prefill_tokens,
            prefill_context_tokens: load.prefill_context_tokens,
            ..Iteration::default()
        };
        let cached_tokens = self.prompt_tokens - self.uncached_tokens(prefix.overlap);
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
            queue: self.weights.queue * queue,
            prefill: self.weights.prefill * own_seconds,
            decode: self.weights.decode * self.expected_output_tokens as f64 * step,
        }
    }
}
