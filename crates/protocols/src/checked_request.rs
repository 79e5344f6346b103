mod limits;
mod sampling;
mod stop;

use forebay_tokens::{RequestId, TokenId};

use crate::Error;
use crate::worker::{GenerateRequest, OutputOptions};

pub use limits::RequestLimits;
pub use sampling::SamplingRules;
pub use stop::StopRules;

/// The most alternatives beside each token that a request may ask for, as in the OpenAI API.
const MAX_LOGPROBS: u32 = 20;

/// A [`GenerateRequest`] whose every field is known to be in range for one engine: whoever sent it
/// may have been wrong about that.
///
/// The rules are the worker protocol's, so every engine that is handed token ids makes its requests
/// by this one. What an engine cannot do at all (adapters, multimodal features, log
/// probabilities) it refuses by itself, before.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckedRequest {
    /// The request's id and the index of the choice: the stream's name.
    pub name: (RequestId, u32),
    /// The prompt; at least one token.
    pub prompt: Vec<TokenId>,
    /// What was generated before; fewer than `max_tokens`.
    pub emitted: Vec<TokenId>,
    /// How many tokens the choice may have in all, `emitted` included: what was asked for and the
    /// context allows.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: SamplingRules,
    /// Which tokens end the choice.
    pub stop: StopRules,
    /// How many of the most probable tokens are reported beside each chosen one, if any are; at
    /// most 20.
    pub logprobs: Option<usize>,
    /// Who may share KV.
    pub cache_salt: String,
    /// Lower goes first.
    pub priority: i32,
}

impl CheckedRequest {
    /// Checks a request.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` with the field in `param` for a value that is out of range, with reason
    /// `context_length_exceeded` for a prompt that leaves no room for a token; `TooLarge` for a
    /// request that can never fit the KV cache.
    pub fn check(request: GenerateRequest, limits: &RequestLimits) -> Result<Self, Error> {
        let id = RequestId::new(&request.request_id)
            .map_err(|error| Error::invalid("request_id", error))?;
        let (prompt, emitted) = (request.prompt_token_ids, request.emitted_token_ids);
        if prompt.is_empty() {
            return Err(Error::invalid("prompt_token_ids", "must not be empty"));
        }
        limits.check_tokens("prompt_token_ids", &prompt)?;
        limits.check_tokens("emitted_token_ids", &emitted)?;

        let sampling = request.sampling.unwrap_or_default();
        let sampling = SamplingRules::check(&sampling, limits.vocabulary_size)?;
        let stop = request.stop.unwrap_or_default();
        let (asked, min_tokens) = (stop.max_tokens, stop.min_tokens);
        if asked == Some(0) {
            return Err(Error::invalid("stop.max_tokens", "must be at least 1"));
        }
        if asked.is_some_and(|max_tokens| min_tokens > max_tokens) {
            let rule = "must not be more than max_tokens";
            return Err(Error::invalid("stop.min_tokens", rule));
        }
        let max_tokens = limits.budget(prompt.len(), emitted.len(), asked)?;
        Ok(Self {
            name: (id, request.choice_index),
            prompt,
            emitted,
            max_tokens,
            sampling,
            stop: StopRules::check(stop, limits)?,
            logprobs: check_logprobs(request.output.unwrap_or_default())?,
            cache_salt: request.cache_salt,
            priority: request.priority,
        })
    }
}

fn check_logprobs(output: OutputOptions) -> Result<Option<usize>, Error> {
    match output.logprobs {
        Some(top) if top > MAX_LOGPROBS => {
            let rule = format!("must be at most {MAX_LOGPROBS}");
            Err(Error::invalid("output.logprobs", rule))
        }
        top => Ok(top.map(|top| top as usize)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
