use std::ops::Range;
use std::time::Duration;

use forebay_perf_model::PerfModel;
use forebay_tokens::{ContentKey, TokenId};
use serde::{Deserialize, Serialize};

use crate::vocabulary::{EOS, VOCABULARY_SIZE, WORDS};
use crate::{ConfigError, Mocker, ScheduledFault};

/// The settings of a [`Mocker`](crate::Mocker).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockerConfig {
    /// Tokens a KV block. At least 1, default 64.
    pub block_size_tokens: u32,
    /// KV blocks in all; a block that was never used takes no memory, one that was some 150 bytes.
    /// At least 1, default 16,384: 1,048,576 tokens.
    pub kv_blocks: u32,
    /// The most tokens that one iteration computes, prompts and answers together; at least
    /// `max_sequences`. Default 8,192.
    pub max_batch_tokens: usize,
    /// The most sequences that are answered at the same time. At least 1, default 256.
    pub max_sequences: usize,
    /// The most sequences that wait; more are refused. At least 1, default 1,024.
    pub max_waiting: usize,
    /// The longest sequence in tokens, prompt and answer together. At least 2, default 131,072.
    pub context_length: usize,
    /// After how many tokens an answer ends by itself, with the first of the request's
    /// end-of-sequence tokens; a request that ignores them or has none goes on to its budget.
    /// Default 1,000.
    pub answer_tokens: usize,
    /// Token ids are below this, and answers are made of all of them. Default: the built-in
    /// [`vocabulary`](crate::vocabulary), and answers are made of its words.
    pub vocabulary_size: Option<u32>,
    /// How long an iteration takes. Default: that of [`PerfModel::default`], a made-up accelerator of
    /// middle size.
    pub perf_model: Option<PerfModel>,
    /// How many times as fast everything is; 0 takes no time at all. Default 1.
    pub speed: f64,
    /// What goes wrong, and when.
    pub faults: Vec<ScheduledFault>,
}

impl Default for MockerConfig {
    fn default() -> Self {
        Self {
            block_size_tokens: 64,
            kv_blocks: 16_384,
            max_batch_tokens: 8_192,
            max_sequences: 256,
            max_waiting: 1_024,
            context_length: 131_072,
            answer_tokens: 1_000,
            vocabulary_size: None,
            perf_model: None,
            speed: 1.0,
            faults: Vec::new(),
        }
    }
}

impl MockerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that does not work.
    pub fn check(&self) -> Result<(), ConfigError> {
        // A block that was never used takes no memory.
        Mocker::new(self, 0, ContentKey::new([0; 32]), Duration::ZERO).map(drop)
    }

    /// Token ids are below this.
    pub fn token_count(&self) -> u32 {
        self.vocabulary_size.unwrap_or(VOCABULARY_SIZE)
    }

    /// The tokens that answers are made of.
    pub fn answer_vocabulary(&self) -> Range<TokenId> {
        self.vocabulary_size.map_or(WORDS, |size| 0..size)
    }

    /// The token that ends an answer; the built-in vocabulary has one.
    pub fn eos(&self) -> Option<TokenId> {
        self.vocabulary_size.is_none().then_some(EOS)
    }

    /// How long iterations take at this speed.
    pub(crate) fn timing(&self) -> Result<PerfModel, ConfigError> {
        if self.speed == 0.0 {
            return Ok(PerfModel::Zero);
        }
        let model = self.perf_model.clone().unwrap_or_default();
        let model = model.at_speed(self.speed);
        model.map_err(|_| ConfigError::Speed(self.speed))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_unknown_ones_are_refused() {
        let config: MockerConfig = serde_json::from_str(r#"{"kv_blocks": 3}"#).unwrap();
        assert_eq!((config.kv_blocks, config.block_size_tokens), (3, 64));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<MockerConfig>(&text).unwrap(), config);
        let unknown = serde_json::from_str::<MockerConfig>(r#"{"kv_block": 3}"#);
        assert!(unknown.unwrap_err().to_string().contains("kv_block"));
    }

    #[test]
    fn speed_is_a_factor_and_zero_no_time() {
        let timing = |speed| {
            MockerConfig {
                speed,
                ..MockerConfig::default()
            }
            .timing()
        };
        assert_eq!(timing(1.0).unwrap(), PerfModel::default());
        assert_eq!(timing(0.0).unwrap(), PerfModel::Zero);
        assert_ne!(timing(2.0).unwrap(), PerfModel::default());
        for speed in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(timing(speed), Err(ConfigError::Speed(_))));
        }
    }
}
