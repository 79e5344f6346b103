use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_chat::{ChatTemplate, Tokenizer};
use forebay_engine::Engine;
use forebay_tokens::TokenId;
use serde::{Deserialize, Serialize};

use crate::{Error, WorkerPool};

/// How a model's tokens are drawn where a client does not say; what is `None` here is the API's
/// default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingDefaults {
    /// 0 (greedy) to 2. The API's default is 1, at which a small model rambles.
    pub temperature: Option<f32>,
    /// Above 0, at most 1. The API's default is 1.
    pub top_p: Option<f32>,
}

impl SamplingDefaults {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let out_of_range = |setting, expected| Err(Error::InvalidSetting { setting, expected });
        if self.temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
            return out_of_range("default temperature", "0 to 2");
        }
        if self.top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
            return out_of_range("default top_p", "above 0 and at most 1");
        }
        Ok(())
    }
}

/// A model that clients can name, and what answers for it.
#[derive(Clone)]
pub struct ServedModel {
    name: String,
    aliases: Vec<String>,
    version: Option<String>,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    sampling: SamplingDefaults,
    pool: WorkerPool,
    eos_token_ids: Vec<TokenId>,
    created_unix_seconds: u64,
}

impl ServedModel {
    /// A model that one engine in this process answers for. It has no chat template: it completes
    /// texts, and refuses chat.
    ///
    /// A choice ends at any of the tokenizer's and the engine's end-of-sequence tokens.
    pub fn new(name: impl Into<String>, tokenizer: Tokenizer, engine: Arc<dyn Engine>) -> Self {
        Self::pooled(name, tokenizer, WorkerPool::of(engine))
    }

    /// The same over any number of workers, which may come and go.
    pub fn pooled(name: impl Into<String>, tokenizer: Tokenizer, pool: WorkerPool) -> Self {
        let mut eos_token_ids = tokenizer.eos().to_vec();
        eos_token_ids.extend_from_slice(&pool.model().eos_token_ids);
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            name: name.into(),
            aliases: Vec::new(),
            version: None,
            tokenizer,
            template: None,
            sampling: SamplingDefaults::default(),
            pool,
            eos_token_ids,
            created_unix_seconds: now.map_or(0, |now| now.as_secs()),
        }
    }

    /// The same model with a chat template.
    #[must_use]
    pub fn with_template(mut self, template: ChatTemplate) -> Self {
        self.template = Some(template);
        self
    }

    /// The same model under one more name.
    #[must_use]
    pub fn with_alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// Other names than it had.
    pub(super) fn set_aliases(&mut self, aliases: Vec<String>) {
        self.aliases = aliases;
    }

    /// The same model as one of several versions that are served under one name at a time, as
    /// during a rolling upgrade: each has workers of its own, and an answer stays with its version.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The same model with other defaults than the API's.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for one that is out of its range.
    pub fn with_sampling_defaults(mut self, defaults: SamplingDefaults) -> Result<Self, Error> {
        defaults.check()?;
        self.sampling = defaults;
        Ok(self)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its other names.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// What turns its text into tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What makes a prompt of a conversation.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// How its tokens are drawn where a client does not say.
    pub fn sampling_defaults(&self) -> SamplingDefaults {
        self.sampling
    }

    /// What generates its tokens.
    pub fn pool(&self) -> &WorkerPool {
        &self.pool
    }

    /// The tokens that end its sequences.
    pub fn eos_token_ids(&self) -> &[TokenId] {
        &self.eos_token_ids
    }

    /// Which of the versions of its name it is; `None` if it was made without
    /// [`Self::with_version`]. One that [`ModelRegistry::follow`](crate::ModelRegistry::follow)
    /// makes always has one, the digest of its workers' cards.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// When it was made, in seconds since 1970.
    pub(super) fn created_unix_seconds(&self) -> u64 {
        self.created_unix_seconds
    }
}

impl fmt::Debug for ServedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedModel")
            .field("name", &self.name)
            .field("aliases", &self.aliases)
            .field("version", &self.version)
            .field("chat", &self.template.is_some())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
