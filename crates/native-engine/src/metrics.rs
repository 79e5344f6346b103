use std::sync::atomic::AtomicU64;
use std::time::Duration;

use forebay_engine::{GenerateOutput, Load};
use forebay_kv_block_manager::GroupStats;
use forebay_observability::{Buckets, Counter, Gauge, Histogram, Registry};

/// What an engine tells about itself, under `forebay_engine_`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests_running: Gauge,
    requests_waiting: Gauge,
    kv_usage_ratio: Gauge<f64, AtomicU64>,
    prompt_tokens: Counter,
    cached_prompt_tokens: Counter,
    generation_tokens: Counter,
    preemptions: Counter,
    evicted_blocks: Counter,
    step_duration_seconds: Histogram,
    step_tokens: Histogram,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let engine = registry.component("engine");
        Self {
            requests_running: engine.gauge("requests_running", "Choices that are being generated"),
            requests_waiting: engine.gauge("requests_waiting", "Choices that wait for KV blocks"),
            kv_usage_ratio: engine.register(
                "kv_usage_ratio",
                "Share of KV blocks that running choices hold",
                Gauge::default,
            ),
            prompt_tokens: engine.counter("prompt_tokens", "Prompt tokens of begun choices"),
            cached_prompt_tokens: engine.counter(
                "cached_prompt_tokens",
                "Those of the prompt tokens that were in the KV cache",
            ),
            generation_tokens: engine.counter("generation_tokens", "Tokens generated"),
            preemptions: engine.counter(
                "preemptions",
                "Times that a running choice lost its KV blocks to others",
            ),
            evicted_blocks: engine.counter(
                "evicted_blocks",
                "Cached KV blocks that gave way to new content",
            ),
            step_duration_seconds: engine.histogram(
                "step_duration_seconds",
                "Time of one step: planning, forward pass and sampling",
                Buckets::INTER_TOKEN_LATENCY,
            ),
            step_tokens: engine.histogram(
                "step_tokens",
                "Tokens that one step computes",
                Buckets::ITERATION_TOKENS,
            ),
        }
    }

    pub(crate) fn stepped(&self, duration: Duration, computed_tokens: usize, preempted: usize) {
        self.step_duration_seconds.observe(duration.as_secs_f64());
        self.step_tokens.observe(computed_tokens as f64);
        self.preemptions.inc_by(preempted as u64);
    }

    pub(crate) fn output(&self, output: &GenerateOutput) {
        self.generation_tokens.inc_by(output.token_ids.len() as u64);
        if let Some(prompt) = output.prompt {
            self.prompt_tokens.inc_by(prompt.prompt_tokens.into());
            self.cached_prompt_tokens
                .inc_by(prompt.cached_tokens.into());
        }
    }

    /// Takes in the state after something happened. One engine calls this for a registry, or the
    /// gauges are of whichever called last.
    pub(crate) fn state(&self, load: &Load, blocks: &GroupStats) {
        self.requests_running.set(load.running_requests.into());
        self.requests_waiting.set(load.waiting_requests.into());
        let (active, total) = (load.kv_blocks_active, load.kv_blocks_total);
        self.kv_usage_ratio
            .set(f64::from(active) / f64::from(total));
        let known = self.evicted_blocks.get();
        self.evicted_blocks
            .inc_by(blocks.evicted_blocks.saturating_sub(known));
    }
}
