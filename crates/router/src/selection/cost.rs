use forebay_perf_model::{Iteration, PerfModel};

use crate::{Load, Overlap, Weights};

/// What a request costs at a worker, for itself and for the requests that are there: the sum of
/// its terms, less is better.
///
/// A request waits for the prefill before it. Its own prefill delays it and everyone who decodes
/// or waits there, and its decode slows their decodes. So a hit is worth most where most runs,
/// and a prefix that all share does not keep all in one place.
///
/// The prompt's uncached tokens are those beyond the overlap, whose blocks in lower tiers count
/// by their credits ([`Weights`]); at least one. `others` is the number of requests booked at the
/// worker.
///
/// In **blocks**:
///
/// ```text
/// queue   = weights.queue   * (prefill tokens booked and not done) / block size
/// prefill = weights.prefill * (uncached tokens) / block size * (1 + others)
/// decode  = weights.decode  * (blocks of the others' contexts + blocks of the prompt)
/// ```
///
/// In **seconds**, where every worker that the request may go to has a [`PerfModel`] `time`; with
/// `decodes`, what the others decode in one iteration; `own`, the request's prefill beside these;
/// `step`, its decode beside these; and `output`, the number of tokens it is expected to generate:
///
/// ```text
/// queue   = weights.queue   * (time(own + booked prefill) - time(own))
/// prefill = weights.prefill * (time(own) + others * (time(own) - time(decodes)))
/// decode  = weights.decode  * (output * time(step) + others * output / 2 * (time(step) - time(decodes)))
/// ```
///
/// The others are taken to be half-way through their outputs, which are as long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// What the terms count.
    pub unit: CostUnit,
    /// Waiting for the prefill of others.
    pub queue: f64,
    /// Its own prefill, and the others' waiting for it.
    pub prefill: f64,
    /// Its decode among the others', and theirs beside it.
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

impl Pricing<'_> {
    /// Prompt tokens to compute, after credits; the last one always is.
    pub(crate) fn uncached_tokens(&self, overlap: Overlap) -> u64 {
        if overlap.blocks() == 0 {
            return self.prompt_tokens;
        }
        let cached = self.weights.credit(overlap) * self.block_size_tokens as f64;
        self.prompt_tokens.saturating_sub(cached as u64).max(1)
    }

    pub(crate) fn in_blocks(&self, overlap: Overlap, load: &Load) -> Cost {
        let blocks = |tokens: u64| tokens as f64 / self.block_size_tokens as f64;
        let own = blocks(self.uncached_tokens(overlap));
        let Weights {
            queue,
            prefill,
            decode,
            ..
        } = self.weights;
        Cost {
            unit: CostUnit::Blocks,
            queue: queue * blocks(load.prefill_tokens),
            prefill: prefill * own * (1 + load.requests) as f64,
            decode: decode * (load.context_blocks + self.prompt_blocks) as f64,
        }
    }

    pub(crate) fn in_seconds(&self, overlap: Overlap, load: &Load, model: &PerfModel) -> Cost {
        let time = |work: Iteration| model.iteration_time(&work).as_secs_f64();
        let context_tokens = load.context_blocks * self.block_size_tokens;
        let decodes = Iteration::decode(load.requests, context_tokens);
        let cached_tokens = self.prompt_tokens - self.uncached_tokens(overlap);
        let own = Iteration::prefill(cached_tokens..self.prompt_tokens) + decodes;
        let booked = Iteration {
            prefill_tokens: load.prefill_tokens,
            prefill_context_tokens: load.prefill_context_tokens,
            ..Iteration::default()
        };
        // Over its output the request's own context is on average half of that longer.
        let context_tokens = (self.prompt_tokens).saturating_add(self.expected_output_tokens / 2);
        let step = decodes + Iteration::decode(1, context_tokens);

        let (others, output) = (load.requests as f64, self.expected_output_tokens as f64);
        let (decodes_time, own_time, step_time) = (time(decodes), time(own), time(step));
        let queue_time = match load.prefills {
            0 => 0.0,
            _ => time(own + booked) - own_time,
        };
        let Weights {
            queue,
            prefill,
            decode,
            ..
        } = self.weights;
        Cost {
            unit: CostUnit::Seconds,
            queue: queue * queue_time,
            prefill: prefill * (own_time + others * (own_time - decodes_time)),
            decode: decode * output * (step_time + others / 2.0 * (step_time - decodes_time)),
        }
    }
}
