use std::time::Duration;

use forebay_protocols::Error;
use forebay_protocols::worker::{FinishReason, GenerateOutput, StopConditions};
use forebay_tokens::TokenId;

use crate::violation::Violation;

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The model ended the sequence.
    EndOfSequence,
    /// One of the request's stop tokens.
    StopToken(TokenId),
    /// One of the request's stop strings: its place in their list.
    StopString(usize),
    /// The budget or the context is used up.
    Length,
}

impl Finish {
    /// Whether the choice's last token was the reason: it was generated and counts, but its text is
    /// no part of the answer.
    pub fn is_by_token(self) -> bool {
        matches!(self, Self::EndOfSequence | Self::StopToken(_))
    }
}

/// Where a choice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its next attempt is still to be dispatched.
    Waiting,
    /// An attempt runs; whether its first output has come.
    Running { begun: bool },
    /// It has its finish; whether the engine said so, and must say no more.
    Ended { finish: Finish, by_engine: bool },
    /// The request ended before it.
    Abandoned,
}

/// One choice: what it has emitted over all its attempts.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) state: State,
    /// How many attempts were dispatched; the last of them is the current one.
    pub(crate) attempts: u32,
    /// How many of them there were since its last token, with the one that the token came from.
    pub(crate) tries: u32,
    /// How many attempts failed, of all of them, that had begun and were not declined.
    pub(crate) broken: u32,
    pub(crate) emitted: Vec<TokenId>,
    /// How many of them came with the last output.
    pub(crate) last_output_tokens: usize,
    pub(crate) last_token_at: Option<Duration>,
    /// Of the first attempt that began: later ones may find what that one left behind.
    pub(crate) cached_tokens: Option<u32>,
    /// The soonest time at which any engine that failed it since its last token would be tried again.
    pub(crate) retry_after: Option<Duration>,
    /// Why the last attempt that failed did.
    pub(crate) failure: Option<Error>,
}

/// What a choice expects of its outputs.
#[derive(Clone, Copy)]
pub(crate) struct Contract<'a> {
    pub(crate) prompt_tokens: usize,
    pub(crate) budget: u32,
    pub(crate) logprobs: bool,
    pub(crate) stop: &'a StopConditions,
}

/// How an output that keeps the contract ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The choice goes on.
    No,
    Finish(Finish),
    /// The engine gave up, unasked.
    Cancelled,
}

impl Choice {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Waiting,
            attempts: 0,
            tries: 0,
            broken: 0,
            emitted: Vec::new(),
            last_output_tokens: 0,
            last_token_at: None,
            cached_tokens: None,
            retry_after: None,
            failure: None,
        }
    }

    pub(crate) fn heard_retry_after(&mut self, after: Option<Duration>) {
        self.retry_after = [self.retry_after, after].into_iter().flatten().min();
    }

    pub(crate) fn finish(&self) -> Option<Finish> {
        match self.state {
            State::Ended { finish, .. } => Some(finish),
            State::Waiting | State::Running { .. } | State::Abandoned => None,
        }
    }

    /// Holds the next output of the current attempt to the contract.
    pub(crate) fn check(
        &self,
        begun: bool,
        output: &GenerateOutput,
        contract: Contract<'_>,
    ) -> Result<End, Violation> {
        match output.prompt {
            Some(usage) if !begun => {
                let (prompt, cached) = (usage.prompt_tokens, usage.cached_tokens);
                let sent = contract.prompt_tokens;
                if prompt as usize != sent || cached > prompt {
                    return Err(Violation::PromptTokens {
                        sent,
                        prompt,
                        cached,
                    });
                }
            }
            None if begun => {}
            _ => return Err(Violation::PromptUsage),
        }
        let tokens = self.emitted.len() + output.token_ids.len();
        if tokens > contract.budget as usize {
            let budget = contract.budget;
            return Err(Violation::Budget { tokens, budget });
        }
        let (tokens, logprobs) = (output.token_ids.len(), output.logprobs.len());
        let expected = if contract.logprobs { tokens } else { 0 };
        if logprobs != expected {
            return Err(Violation::Logprobs { tokens, logprobs });
        }
        end(output, contract.stop)
    }
}

fn end(output: &GenerateOutput, stop: &StopConditions) -> Result<End, Violation> {
    let reason = FinishReason::try_from(output.finish_reason)
        .map_err(|_| Violation::FinishReason(output.finish_reason))?;
    let last = output.token_ids.last().copied();
    match (reason, output.matched_stop_token) {
        (FinishReason::Stop, matched) => {
            let caused = match matched {
                Some(token) => last == Some(token) && stop.stop_token_ids.contains(&token),
                None => last.is_some(),
            };
            match (caused, matched) {
                (false, _) => Err(Violation::StopToken),
                (true, Some(token)) => Ok(End::Finish(Finish::StopToken(token))),
                (true, None) => Ok(End::Finish(Finish::EndOfSequence)),
            }
        }
        (_, Some(_)) => Err(Violation::StopToken),
        (FinishReason::Length, None) => Ok(End::Finish(Finish::Length)),
        (FinishReason::Cancelled | FinishReason::Enough, None) => Ok(End::Cancelled),
        (FinishReason::Unspecified, None) => Ok(End::No),
    }
}
