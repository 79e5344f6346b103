use forebay_batch_scheduler::Priority;
use forebay_protocols::worker::{GenerateRequest, OutputOptions, StopConditions};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{BlockSize, RequestId, TokenId};

use super::CAPABILITIES;
use crate::sampling::{MAX_LOGPROBS, SamplingParams};

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) vocabulary: usize,
    pub(super) context_length: usize,
    pub(super) kv_blocks: usize,
    pub(super) block_size: BlockSize,
}

/// A request whose every field is known to be in range: whoever sent it may have been wrong about
/// that.
#[derive(Debug)]
pub(super) struct CheckedRequest {
    pub(super) name: (RequestId, u32),
    pub(super) prompt: Vec<TokenId>,
    pub(super) emitted: Vec<TokenId>,
    /// The budget: what was asked for and the context allows, `emitted` included.
    pub(super) max_tokens: usize,
    pub(super) sampling: SamplingParams,
    pub(super) stop: StopRules,
    pub(super) logprobs: Option<usize>,
    pub(super) cache_salt: String,
    pub(super) priority: Priority,
}

/// The tokens that end a choice.
#[derive(Debug)]
pub(super) struct StopRules {
    min_tokens: usize,
    stop: Vec<TokenId>,
    /// Those of `stop` and the end-of-sequence tokens that count.
    all: Vec<TokenId>,
}

impl StopRules {
    fn check(message: StopConditions, vocabulary: usize) -> Result<Self, Error> {
        let stop = message.stop_token_ids;
        let eos = message.eos_token_ids;
        check_tokens("stop.stop_token_ids", &stop, vocabulary)?;
        check_tokens("stop.eos_token_ids", &eos, vocabulary)?;
        let mut all = stop.clone();
        if !message.ignore_eos {
            all.extend(eos);
        }
        Ok(Self {
            min_tokens: message.min_tokens as usize,
            stop,
            all,
        })
    }

    /// What may not be the token at `position` of the choice.
    pub(super) fn banned(&self, position: usize) -> &[TokenId] {
        if position < self.min_tokens {
            &self.all
        } else {
            &[]
        }
    }

    /// Whether a token ends the choice.
    pub(super) fn ends(&self, token: TokenId) -> bool {
        self.all.contains(&token)
    }

    /// A token that ends the choice, if that was asked for and is not the model's own.
    pub(super) fn matched(&self, token: TokenId) -> Option<TokenId> {
        self.stop.contains(&token).then_some(token)
    }
}

impl CheckedRequest {
    /// Checks a request.
    ///
    /// # Errors
    ///
    /// As [`Engine::generate`](forebay_engine::Engine::generate), for all that a request is
    /// refused for whatever else runs.
    pub(super) fn check(request: GenerateRequest, limits: &Limits) -> Result<Self, Error> {
        let id = RequestId::new(&request.request_id)
            .map_err(|error| Error::invalid("request_id", error))?;
        CAPABILITIES.check(&request)?;
        let (prompt, emitted) = (request.prompt_token_ids, request.emitted_token_ids);
        if prompt.is_empty() {
            return Err(Error::invalid("prompt_token_ids", "must not be empty"));
        }
        check_tokens("prompt_token_ids", &prompt, limits.vocabulary)?;
        check_tokens("emitted_token_ids", &emitted, limits.vocabulary)?;

        let sampling =
            SamplingParams::check(&request.sampling.unwrap_or_default(), limits.vocabulary)?;
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
            stop: StopRules::check(stop, limits.vocabulary)?,
            logprobs: check_logprobs(request.output.unwrap_or_default())?,
            cache_salt: request.cache_salt,
            priority: Priority(request.priority),
        })
    }
}

impl Limits {
    /// How many tokens a choice may have in all.
    fn budget(
        &self,
        prompt: usize,
        emitted: usize,
        max_tokens: Option<u32>,
    ) -> Result<usize, Error> {
        let context = self.context_length;
        if prompt + emitted >= context {
            let message = format!(
                "the context length is {context} tokens, and {} leave no room for another",
                prompt + emitted
            );
            let class = ErrorClass::InvalidRequest;
            return Err(Error::new(class, "context_length_exceeded", message)
                .with_param("prompt_token_ids"));
        }
        let room = context - prompt;
        // The last token needs no KV. Without a budget of its own, a choice gets what fits.
        let (budget, least) = match max_tokens {
            Some(asked) => {
                let asked = asked as usize;
                if emitted >= asked {
                    let rule = format!("the choice has {emitted} tokens already");
                    return Err(Error::invalid("stop.max_tokens", rule));
                }
                (asked.min(room), asked.min(room))
            }
            None => {
                let fits = (self.kv_blocks * self.block_size.get() + 1).saturating_sub(prompt);
                (room.min(fits), emitted + 1)
            }
        };
        let needed = self.block_size.blocks_for(prompt + least - 1);
        if needed > self.kv_blocks {
            let message = format!(
                "the request needs {needed} KV blocks of {} tokens, and the engine has {}",
                self.block_size, self.kv_blocks
            );
            return Err(Error::new(
                ErrorClass::TooLarge,
                "kv_cache_exceeded",
                message,
            ));
        }
        Ok(budget)
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

fn check_tokens(field: &str, tokens: &[TokenId], vocabulary: usize) -> Result<(), Error> {
    match tokens.iter().find(|token| **token as usize >= vocabulary) {
        None => Ok(()),
        Some(token) => {
            let rule = format!("token {token} is not in the vocabulary of {vocabulary}");
            Err(Error::invalid(field, rule))
        }
    }
}
