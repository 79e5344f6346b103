use forebay_batch_scheduler::Sampled;
use forebay_protocols::worker::{GenerateOutput, PromptUsage};
use forebay_protocols::{CheckedRequest, StopRules};
use forebay_tokens::RequestId;

use crate::Answer;

/// What is remembered of a choice beside its sequence.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) name: (RequestId, u32),
    prompt_tokens: usize,
    stop: StopRules,
    answer: Answer,
    /// From this position on, an end-of-sequence token ends the answer.
    ends_after: usize,
    /// Tokens generated, here and before.
    position: usize,
    /// Whether an output was made.
    pub(super) has_begun: bool,
    /// What was not taken yet.
    pending: GenerateOutput,
}

impl Choice {
    pub(super) fn new(request: &CheckedRequest, answer: Answer, answer_tokens: usize) -> Self {
        Self {
            name: request.name.clone(),
            prompt_tokens: request.prompt.len(),
            stop: request.stop.clone(),
            answer,
            ends_after: answer_tokens,
            position: request.emitted.len(),
            has_begun: false,
            pending: GenerateOutput::default(),
        }
    }

    /// Makes the next token and adds it to what is pending.
    pub(super) fn generate(&mut self, cached_tokens: usize) -> Sampled {
        let banned = self.stop.banned(self.position);
        let end = self.stop.end_of_sequence().first();
        let token = match end {
            Some(end) if banned.is_empty() && self.position >= self.ends_after => *end,
            _ => self.answer.token_but(self.position, banned),
        };
        self.position += 1;
        if !self.has_begun {
            self.has_begun = true;
            self.pending.prompt = Some(self.prompt_usage(cached_tokens));
        }
        self.pending.token_ids.push(token);
        self.pending.matched_stop_token = self.stop.matched(token);
        let stop = self.stop.ends(token);
        Sampled { token, stop }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.token_ids.is_empty()
    }

    pub(super) fn take_pending(&mut self) -> GenerateOutput {
        std::mem::take(&mut self.pending)
    }

    pub(super) fn prompt_usage(&self, cached_tokens: usize) -> PromptUsage {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        PromptUsage {
            prompt_tokens: small(self.prompt_tokens),
            cached_tokens: small(cached_tokens),
        }
    }
}
