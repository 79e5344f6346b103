use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::generation::{Generation, generation_request};
use super::{FinishReason, StopReason, Usage};
use crate::Error;

generation_request! {
    /// The body of `POST /v1/completions`.
    pub struct CompletionRequest {
        /// What to continue.
        pub prompt: Prompt,
        /// Report the log probability of each token and this many of the most probable ones; 0 to
        /// 20.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub logprobs: Option<u32>,
        /// Begin each choice's text with its prompt; not together with `logprobs`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub echo: Option<bool>,
    }
}

impl CompletionRequest {
    /// The API's default for `max_tokens`.
    pub const DEFAULT_MAX_TOKENS: u32 = 16;

    /// What the request asks of generation, checked.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range, unknown, or understood and not supported, by name.
    pub fn generation(&self) -> Result<Generation, Error> {
        if let Some(top) = self.logprobs
            && top > Generation::MAX_TOP_LOGPROBS
        {
            let most = Generation::MAX_TOP_LOGPROBS;
            return Err(Error::invalid(
                "logprobs",
                format!("must be 0 to {most}, not {top}"),
            ));
        }
        if self.echo == Some(true) && self.logprobs.is_some() {
            // The prompt's own log probabilities would be a part of the answer.
            return Err(Error::unsupported(
                "echo",
                "is not supported together with logprobs",
            ));
        }
        let max_tokens = self.max_tokens.unwrap_or_else(|| {
            // A lower bound that was asked for is not contradicted by a default.
            Self::DEFAULT_MAX_TOKENS.max(self.min_tokens.unwrap_or(0))
        });
        self.shared_generation(Some(max_tokens), self.logprobs)
    }
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(
    untagged,
    expecting = "expected a string, an array of strings, an array of token ids, or an array of such arrays"
)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// One prompt as token ids. First among the arrays: an empty one is an empty prompt.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several prompts as token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// The answer to a completion, or one event of it when it is streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Completion {
    /// The answer's id; the same in every event of a stream.
    pub id: String,
    /// Always `text_completion`.
    pub object: Cow<'static, str>,
    /// When it was begun, in seconds since 1970.
    pub created: u64,
    /// The model that was asked for.
    pub model: String,
    /// The choices in order of index, or what came of one; empty in the event that has the usage.
    pub choices: Vec<CompletionChoice>,
    /// What it took; in a stream's last event, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One choice, or what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompletionChoice {
    /// The text, or what to append to it.
    pub text: String,
    /// From 0.
    pub index: u32,
    /// If they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended; in a stream, in the choice's last event.
    pub finish_reason: Option<FinishReason>,
    /// What stopped it, beside the model's own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
}

/// The log probabilities of a choice's tokens, in parallel arrays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompletionLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// The natural logarithms of their probabilities.
    pub token_logprobs: Vec<Option<f32>>,
    /// For each, the most probable tokens in its place.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each begins in the choice's text, in characters.
    pub text_offset: Vec<u32>,
}
