//! Settings.

use std::num::NonZeroUsize;

use forebay_batch_scheduler::SchedulerConfig;
use forebay_tokens::{BlockSize, ContentKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::StartError;

/// The settings of a [`NativeEngine`](crate::NativeEngine).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// The name that the engine gives its model. Default: what the model's file says, or `model`.
    pub model_name: Option<String>,
    /// Memory for KV blocks, in bytes, of which the engine makes as many blocks as fit. Pages that
    /// are never written cost nothing. Default 1 GiB.
    pub kv_cache_bytes: u64,
    /// Tokens a KV block. Blocks are what is cached and shared: smaller ones share more and cost
    /// more bookkeeping. At least 1, default 16.
    pub block_size_tokens: u32,
    /// The most tokens that one step computes, prompts and answers together; at least
    /// `max_sequences`. Default 256.
    pub max_batch_tokens: usize,
    /// The most tokens of one prompt that one step computes; whoever is answered meanwhile waits
    /// for a step between two of its tokens. At least 1, default 128.
    pub max_chunk_tokens: usize,
    /// The most sequences that are answered at the same time. At least 1, default 32.
    pub max_sequences: usize,
    /// The most sequences that wait; more are refused. At least 1, default 256.
    pub max_waiting: usize,
    /// Threads that compute. Default: as many as the process may run on.
    pub threads: Option<NonZeroUsize>,
    /// The secret under which KV blocks are named, 64 hexadecimal digits: the same on all workers
    /// that exchange blocks. Default: drawn at random, which is right for one process alone.
    #[serde(serialize_with = "hide_key", deserialize_with = "read_key")]
    pub content_key: Option<ContentKey>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            model_name: None,
            kv_cache_bytes: 1 << 30,
            block_size_tokens: 16,
            max_batch_tokens: 256,
            max_chunk_tokens: 128,
            max_sequences: 32,
            max_waiting: 256,
            threads: None,
            content_key: None,
        }
    }
}

impl EngineConfig {
    /// Checks what can be checked before there is a model.
    ///
    /// # Errors
    ///
    /// [`StartError::BlockSize`] and [`StartError::Scheduler`], as the engine's start would give
    /// them.
    pub fn check(&self) -> Result<(), StartError> {
        const ANY_CONTEXT_TOKENS: usize = 2;
        BlockSize::new(self.block_size_tokens)?;
        self.scheduler(ANY_CONTEXT_TOKENS).check()?;
        Ok(())
    }

    /// The scheduler's settings for a model.
    pub(crate) fn scheduler(&self, context_length: usize) -> SchedulerConfig {
        SchedulerConfig {
            max_batch_tokens: self.max_batch_tokens,
            max_chunk_tokens: self.max_chunk_tokens,
            max_sequences: self.max_sequences,
            max_waiting: self.max_waiting,
            context_length,
        }
    }
}

/// The key is written as a remark that it is there.
fn hide_key<S: Serializer>(key: &Option<ContentKey>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(|_| "(secret)").serialize(serializer)
}

fn read_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ContentKey>, D::Error> {
    let digits = Option::<String>::deserialize(deserializer)?;
    // The message does not show the value.
    let wrong = || serde::de::Error::custom("a content key has 64 hexadecimal digits");
    let key = digits.map(|digits| parse_key(&digits).ok_or_else(wrong));
    key.transpose()
}

fn parse_key(digits: &str) -> Option<ContentKey> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let mut key = [0; 32];
    if pairs.len() != key.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(ContentKey::new(key))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_tokens::ContentNamespace;

    use super::*;

    #[test]
    fn the_content_key_is_read_and_never_shown() {
        let digits = "00FF".to_owned() + &"7a".repeat(30);
        let config: EngineConfig =
            serde_json::from_str(&format!(r#"{{"content_key": "{digits}"}}"#)).unwrap();
        let mut bytes = [0x7a; 32];
        (bytes[0], bytes[1]) = (0, 0xff);
        let id = |key: &ContentKey| {
            ContentNamespace::new(key, b"", b"").content_id(None, &[1], std::iter::empty())
        };
        let key = config.content_key.as_ref().unwrap();
        assert_eq!(id(key), id(&ContentKey::new(bytes)));

        let shown = format!("{config:?}") + &serde_json::to_string(&config).unwrap();
        assert!(!shown.to_lowercase().contains("7a7a"), "{shown}");

        for wrong in [
            "7a".repeat(31),
            "7a".repeat(33),
            "7g".repeat(32),
            "7".repeat(63),
        ] {
            let json = format!(r#"{{"content_key": "{wrong}"}}"#);
            let error = serde_json::from_str::<EngineConfig>(&json).unwrap_err();
            assert!(error.to_string().contains("64 hexadecimal digits"));
            assert!(!error.to_string().contains(&wrong[..8]));
        }
    }

    #[test]
    fn bounds_under_which_nothing_runs_are_named() {
        let check = |json| serde_json::from_str::<EngineConfig>(json).unwrap().check();
        assert!(check("{}").is_ok());
        let block_size = check(r#"{"block_size_tokens": 0}"#);
        assert!(matches!(block_size, Err(StartError::BlockSize(_))));
        for json in [r#"{"max_waiting": 0}"#, r#"{"max_batch_tokens": 31}"#] {
            assert!(matches!(check(json), Err(StartError::Scheduler(_))));
        }
    }

    #[test]
    fn settings_have_defaults_and_unknown_ones_are_refused() {
        let config: EngineConfig = serde_json::from_str(r#"{"max_sequences": 3}"#).unwrap();
        assert_eq!((config.max_sequences, config.block_size_tokens), (3, 16));
        let unknown = serde_json::from_str::<EngineConfig>(r#"{"max_sequence": 3}"#);
        assert!(unknown.unwrap_err().to_string().contains("max_sequence"));
    }
}
