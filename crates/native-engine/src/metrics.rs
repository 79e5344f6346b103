use std::time::Duration;

use forebay_engine::{GenerateOutput, Load};
use forebay_kv_block_manager::GroupStats;
use forebay_observability::{Buckets, Counter, Gauge, Histogram, Registry};

/// What an engine tells about itself, under `forebay_engine_`. Engines of one registry tell their
/// sums.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests_running: Gauge,
    requests_waiting: Gauge,
    kv_blocks: Gauge,
    kv_active_blocks: Gauge,
    prompt_tokens: Counter,
    cached_prompt_tokens: Counter,
    generation_tokens: Counter,
    preemptions: Counter,
    evicted_blocks: Counter,
    step_duration_seconds: Histogram,
    step_tokens: Histogram,
    /// What this engine has told last.
    told: Told,
}

#[derive(Debug, Default)]
struct Told {
    load: Load,
    evicted_blocks: u64,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let engine = registry.component("engine");
        Self {
            requests_running: engine.gauge("requests_running", "Choices that are being generated"),
            requests_waiting: engine.gauge("requests_waiting", "Choices that wait for KV blocks"),
            kv_blocks: engine.gauge("kv_blocks", "KV blocks in all"),
            kv_active_blocks: engine
                .gauge("kv_active_blocks", "KV blocks that running choices hold"),
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
            told: Told::default(),
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

    /// Takes in the state after something happened.
    pub(crate) fn state(&mut self, load: &Load, blocks: &GroupStats) {
        let told = std::mem::replace(
            &mut self.told,
            Told {
                load: *load,
                evicted_blocks: blocks.evicted_blocks,
            },
        );
        let change = |gauge: &Gauge, value: fn(&Load) -> u32| {
            gauge.inc_by(i64::from(value(load)) - i64::from(value(&told.load)));
        };
        change(&self.requests_running, |load| load.running_requests);
        change(&self.requests_waiting, |load| load.waiting_requests);
        change(&self.kv_blocks, |load| load.kv_blocks_total);
        change(&self.kv_active_blocks, |load| load.kv_blocks_active);
        let evicted = blocks.evicted_blocks.saturating_sub(told.evicted_blocks);
        self.evicted_blocks.inc_by(evicted);
    }
}

impl Drop for Metrics {
    /// An engine that has ended has nothing.
    fn drop(&mut self) {
        let blocks = GroupStats {
            evicted_blocks: self.told.evicted_blocks,
            ..GroupStats::default()
        };
        self.state(&Load::default(), &blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_of_one_registry_tell_their_sums() {
        let registry = Registry::new();
        let [mut first, mut second] = [0, 1].map(|_| Metrics::new(&registry));
        let load = |running_requests| Load {
            running_requests,
            kv_blocks_total: 100,
            ..Load::default()
        };
        let evicted = |evicted_blocks| GroupStats {
            evicted_blocks,
            ..GroupStats::default()
        };
        first.state(&load(3), &evicted(10));
        second.state(&load(4), &evicted(1));
        first.state(&load(2), &evicted(12));
        let has = |line: &str| registry.encode().lines().any(|found| found == line);
        assert!(has("forebay_engine_requests_running 6"));
        assert!(has("forebay_engine_kv_blocks 200"));
        assert!(has("forebay_engine_evicted_blocks_total 13"));
        drop(second);
        assert!(has("forebay_engine_requests_running 2"));
        assert!(has("forebay_engine_evicted_blocks_total 13"));
    }
}
