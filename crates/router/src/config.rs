use forebay_tokens::Tier;
use serde::{Deserialize, Serialize};

use crate::index::Overlap;
use crate::{ConfigError, Mode};

/// A [`Router`](crate::Router)'s settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterConfig {
    /// How a worker is chosen where the request does not say. Default [`Mode::Kv`].
    pub mode: Mode,
    /// The most memory the prefix index takes; at least 1 MiB. Default 256 MiB: some 8 million
    /// blocks.
    pub max_index_bytes: usize,
    /// Whether the prompt of a running request counts as cached where it runs. Without it a burst
    /// of requests with one prefix spreads over all workers before the first KV event is there.
    /// False where engines cache no prefixes. Default true.
    pub credit_running_requests: bool,
    /// How many tokens a request is taken to generate that does not say; more makes the decodes at
    /// a worker matter more where time is predicted. Default 256.
    pub expected_output_tokens: u64,
    /// What a worker costs in the mode [`Mode::Kv`].
    pub weights: Weights,
}

/// What counts how much when workers are compared: see [`Cost`](crate::Cost).
///
/// The defaults are robust rather than best for one load: over published traces of conversations
/// and agents and made-up ones, on idle and on busy simulated engines, they found nine tenths of
/// what one cache of all workers' size would have, and no other weights answered much sooner.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// The prefill that is booked at the worker and not done; at least 0. Default 1.
    pub queue: f64,
    /// The prefill of the request, which it waits for itself and delays others; at least 0.
    /// Default 2: what is cached twice takes the place of something else.
    pub prefill: f64,
    /// The decodes at the worker, the request's own included; at least 0. Default 0.25: decodes
    /// come and go, and what they are now is not what they will be.
    pub decode: f64,
    /// How much of a block's prefill is saved if it is cached in host memory, 0 to 1. Default
    /// 0.75. (On the device it is 1.)
    pub g2_credit: f64,
    /// The same for local disk. Default 0.25.
    pub g3_credit: f64,
    /// The same for a remote store. Default 0.25.
    pub g4_credit: f64,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Kv,
            max_index_bytes: 256 << 20,
            credit_running_requests: true,
            expected_output_tokens: 256,
            weights: Weights::default(),
        }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            queue: 1.0,
            prefill: 2.0,
            decode: 0.25,
            g2_credit: 0.75,
            g3_credit: 0.25,
            g4_credit: 0.25,
        }
    }
}

impl RouterConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let error = |setting, expected| Err(ConfigError { setting, expected });
        if self.max_index_bytes < 1 << 20 {
            return error("max_index_bytes", "at least 1 MiB");
        }
        let Weights {
            queue,
            prefill,
            decode,
            g2_credit,
            g3_credit,
            g4_credit,
        } = self.weights;
        let weights = [
            ("weights.queue", queue),
            ("weights.prefill", prefill),
            ("weights.decode", decode),
        ];
        for (setting, weight) in weights {
            if !(weight >= 0.0 && weight.is_finite()) {
                return error(setting, "a finite number of at least 0");
            }
        }
        let credits = [
            ("weights.g2_credit", g2_credit),
            ("weights.g3_credit", g3_credit),
            ("weights.g4_credit", g4_credit),
        ];
        for (setting, credit) in credits {
            if !(0.0..=1.0).contains(&credit) {
                return error(setting, "0 to 1");
            }
        }
        Ok(())
    }
}

impl Weights {
    /// An overlap as the blocks of prefill that it saves.
    pub(crate) fn credit(&self, overlap: Overlap) -> f64 {
        let blocks = |tier| f64::from(overlap.blocks_in(tier));
        blocks(Tier::G1)
            + self.g2_credit * blocks(Tier::G2)
            + self.g3_credit * blocks(Tier::G3)
            + self.g4_credit * blocks(Tier::G4)
    }
}
