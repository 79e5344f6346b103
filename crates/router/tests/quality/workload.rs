//! Requests over time.

use std::sync::Arc;
use std::time::Duration;

use forebay_tokens::RoutingHash;

use crate::engine::BLOCK_TOKENS;

#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Duration,
    /// Of the prompt's full blocks.
    pub(crate) chain: Arc<[RoutingHash]>,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
}

/// Conversations: each starts with one of a few system prompts, the first of which are asked for
/// most, and each turn's prompt has all turns before it. Users take their time between turns.
pub(crate) struct Conversations {
    pub(crate) seed: u64,
    pub(crate) conversations: u64,
    /// The mean time between two that start.
    pub(crate) every: Duration,
    pub(crate) system_prompts: u64,
    pub(crate) system_blocks: u64,
    pub(crate) turns: u64,
    /// Answers have up to this many.
    pub(crate) output_blocks: u64,
}

impl Conversations {
    /// In the order of their time.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        let mut random = Random(self.seed);
        let mut arrivals = Vec::new();
        let mut start = Duration::ZERO;
        for conversation in 1..=self.conversations {
            start += random.time(self.every);
            let system = (random.unit().powi(2) * self.system_prompts as f64) as u64;
            let mut chain: Vec<_> = (0..self.system_blocks)
                .map(|n| hash(0, system, n))
                .collect();
            let mut at = start;
            for _ in 0..1 + random.below(self.turns) {
                let blocks = 1 + random.below(24);
                let from = chain.len() as u64;
                chain.extend((from..from + blocks).map(|n| hash(conversation, system, n)));
                let output_blocks = 1 + random.below(self.output_blocks);
                arrivals.push(Arrival {
                    at,
                    chain: chain.as_slice().into(),
                    prompt_tokens: chain.len() as u64 * BLOCK_TOKENS + random.below(BLOCK_TOKENS),
                    output_tokens: output_blocks * BLOCK_TOKENS,
                });
                let from = chain.len() as u64;
                chain.extend((from..from + output_blocks).map(|n| hash(conversation, system, n)));
                at += Duration::from_secs(4) + random.time(Duration::from_secs(20));
            }
        }
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals
    }
}

/// The hash of a conversation's block; 0 stands for the system prompt.
fn hash(conversation: u64, system: u64, n: u64) -> RoutingHash {
    let n = conversation << 32 | system << 16 | n;
    RoutingHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.unit() * n as f64) as u64
    }

    /// Between two arrivals that know nothing of each other.
    fn time(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}
