use std::num::NonZeroU32;

use forebay_protocols::worker::{GenerateRequest, OutputOptions, SamplingParams, StopConditions};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{RequestId, TokenId};

/// What a client's request asks of the engine.
///
/// Choices are numbered through all prompts: those of prompt `p` are
/// `p * choices_per_prompt .. (p + 1) * choices_per_prompt`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The request's id on every hop.
    pub id: RequestId,
    /// The name under which the model is served.
    pub model: String,
    /// The prompts; at least one, none empty.
    pub prompts: Vec<Vec<TokenId>>,
    /// How many choices to generate for each prompt, at least 1.
    pub choices_per_prompt: u32,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// When a choice ends, with the model's end-of-sequence tokens. `max_tokens` is a demand, which
    /// must fit the context.
    pub stop: StopConditions,
    /// How many tokens a choice may have without `max_tokens`: this, or what the context leaves if
    /// that is less.
    pub default_max_tokens: Option<u32>,
    /// What the engine is to report.
    pub output: OutputOptions,
    /// Separates KV that must not be shared; empty for none.
    pub cache_salt: String,
    /// Lower goes first.
    pub priority: i32,
    /// The longest sequence in tokens, prompt and answer together.
    pub context_length: u32,
    /// How often a choice is tried: a choice whose attempt failed for a reason that lies in the
    /// engine goes on with the next one after what it has emitted. So many attempts that had begun
    /// may fail over the whole life of a choice; those that refused it count from its last token
    /// on, the attempt that the token came from being the first.
    pub max_attempts: NonZeroU32,
}

impl Plan {
    /// One choice for each prompt, of default sampling, in one attempt, until the context is full.
    pub fn new(
        id: RequestId,
        model: impl Into<String>,
        prompts: Vec<Vec<TokenId>>,
        context_length: u32,
    ) -> Self {
        Self {
            id,
            model: model.into(),
            prompts,
            choices_per_prompt: 1,
            sampling: SamplingParams::default(),
            stop: StopConditions::default(),
            default_max_tokens: None,
            output: OutputOptions::default(),
            cache_salt: String::new(),
            priority: 0,
            context_length,
            max_attempts: NonZeroU32::MIN,
        }
    }

    /// How many choices there are in all.
    pub fn choices(&self) -> u32 {
        let prompts = u32::try_from(self.prompts.len()).unwrap_or(u32::MAX);
        prompts.saturating_mul(self.choices_per_prompt)
    }

    /// Which prompt a choice continues.
    pub fn prompt_of(&self, choice: u32) -> usize {
        (choice / self.choices_per_prompt) as usize
    }

    /// Whether every prompt leaves room in the context for what was asked.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.prompts.is_empty() || self.choices_per_prompt == 0 {
            return Err(Error::new(
                ErrorClass::InvalidRequest,
                "empty_request",
                "the request has no prompt or asks for no choice",
            ));
        }
        for prompt in &self.prompts {
            self.check_prompt(prompt.len())?;
        }
        Ok(())
    }

    fn check_prompt(&self, tokens: usize) -> Result<(), Error> {
        let context = self.context_length;
        if tokens == 0 {
            return Err(Error::new(
                ErrorClass::InvalidRequest,
                "empty_prompt",
                "a prompt must have at least one token",
            ));
        }
        let asked = self.stop.max_tokens.unwrap_or(1).max(self.stop.min_tokens);
        if (tokens as u64) + u64::from(asked) <= u64::from(context) {
            return Ok(());
        }
        let demand = match (self.stop.max_tokens, self.stop.min_tokens) {
            (Some(asked), _) => format!(", and {asked} more were asked for"),
            (None, 0 | 1) => " and leaves no room for an answer".to_owned(),
            (None, min) => format!(", and at least {min} more were asked for"),
        };
        Err(Error::new(
            ErrorClass::InvalidRequest,
            "context_length_exceeded",
            format!("this model's context is {context} tokens; the prompt has {tokens}{demand}"),
        ))
    }

    /// How many tokens a choice may have.
    pub(crate) fn budget(&self, choice: u32) -> u32 {
        let prompt = u32::try_from(self.prompts[self.prompt_of(choice)].len()).unwrap_or(u32::MAX);
        let room = self.context_length.saturating_sub(prompt);
        let max = self.stop.max_tokens.or(self.default_max_tokens);
        max.map_or(room, |max| max.min(room))
    }

    /// What to send for a choice that has emitted `emitted` so far.
    pub(crate) fn generate_request(&self, choice: u32, emitted: &[TokenId]) -> GenerateRequest {
        GenerateRequest {
            request_id: self.id.as_str().to_owned(),
            model: self.model.clone(),
            prompt_token_ids: self.prompts[self.prompt_of(choice)].clone(),
            emitted_token_ids: emitted.to_vec(),
            choice_index: choice,
            sampling: Some(self.sampling.clone()),
            stop: Some(StopConditions {
                max_tokens: Some(self.budget(choice)),
                ..self.stop.clone()
            }),
            output: Some(self.output),
            lora: String::new(),
            cache_salt: self.cache_salt.clone(),
            priority: self.priority,
            features: Vec::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(prompt: usize, max_tokens: Option<u32>) -> Plan {
        let id = RequestId::new("r").unwrap();
        let mut plan = Plan::new(id, "m", vec![vec![1; prompt]], 10);
        plan.stop.max_tokens = max_tokens;
        plan
    }

    #[test]
    fn prompt_and_answer_share_the_context() {
        assert_eq!(plan(9, None).check(), Ok(()));
        assert_eq!(plan(9, None).budget(0), 1);
        assert_eq!(plan(6, Some(4)).check(), Ok(()));
        assert_eq!(plan(1, Some(4)).budget(0), 4);
        // A default is no demand.
        let mut by_default = plan(6, None);
        by_default.default_max_tokens = Some(5);
        assert_eq!(by_default.check(), Ok(()));
        assert_eq!(by_default.budget(0), 4);
        by_default.default_max_tokens = Some(3);
        assert_eq!(by_default.budget(0), 3);

        let full = plan(10, None).check().unwrap_err();
        assert_eq!(full.reason, "context_length_exceeded");
        assert_eq!(
            full.message,
            "this model's context is 10 tokens; the prompt has 10 and leaves no room for an answer"
        );
        let asked = plan(6, Some(5)).check().unwrap_err();
        assert_eq!(
            asked.message,
            "this model's context is 10 tokens; the prompt has 6, and 5 more were asked for"
        );
        let mut at_least = plan(6, None);
        at_least.stop.min_tokens = 5;
        assert_eq!(
            at_least.check().unwrap_err().message,
            "this model's context is 10 tokens; the prompt has 6, and at least 5 more were asked \
             for"
        );
        assert_eq!(
            plan(6, Some(u32::MAX)).check().unwrap_err().class,
            full.class
        );
        assert_eq!(plan(0, None).check().unwrap_err().reason, "empty_prompt");
    }

    #[test]
    fn choices_are_numbered_through_the_prompts() {
        let id = RequestId::new("r").unwrap();
        let mut plan = Plan::new(id, "m", vec![vec![1], vec![2, 2]], 10);
        plan.choices_per_prompt = 3;
        assert_eq!(plan.choices(), 6);
        let request = plan.generate_request(4, &[9]);
        assert_eq!(request.prompt_token_ids, [2, 2]);
        assert_eq!(request.emitted_token_ids, [9]);
        assert_eq!(request.choice_index, 4);
        // The budget is of the whole choice, whatever was emitted already.
        assert_eq!(request.stop.unwrap().max_tokens, Some(8));
    }
}
