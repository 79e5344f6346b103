use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use forebay_protocols::openai::{PromptTokensDetails, Usage};
use forebay_protocols::worker::{GenerateOutput, GenerateRequest, TokenLogprobs};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::TokenId;

use crate::choice::{Choice, Contract, End, State};
use crate::violation::Violation;
use crate::{Finish, Plan, Timing};

/// One attempt at one choice. Whoever runs it says with it whose output came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The choice, numbered through all prompts.
    pub choice: u32,
    /// Which attempt at it, from 0.
    pub number: u32,
}

/// What is to be done for a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Send this to an engine, and report under `attempt` what comes of it.
    Dispatch {
        /// Its name.
        attempt: AttemptId,
        /// What to send.
        request: Box<GenerateRequest>,
    },
    /// The attempt's stream is of no use any more: end it. What it still says is ignored.
    Abort(AttemptId),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every choice has its finish.
    Finished,
    /// The client did not want it any more.
    Cancelled,
    /// A choice could not be finished.
    Failed(Error),
}

/// What an output adds to a choice: new to the client, and in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The new tokens. The last one is no part of the answer's text if
    /// [`finish`](Self::finish) [is by a token](Finish::is_by_token).
    pub tokens: Vec<TokenId>,
    /// One for each token if they were asked for; else empty.
    pub logprobs: Vec<TokenLogprobs>,
    /// Whether the choice ended with it, and why.
    pub finish: Option<Finish>,
    /// ITL: the time since the choice's last token, if this has tokens and is not the first.
    pub since_last_token: Option<Duration>,
}

/// One client's request: what it has emitted, what runs for it and how it ends.
///
/// Inputs are [`output`](Self::output), [`failed`](Self::failed), [`declined`](Self::declined),
/// [`unplaceable`](Self::unplaceable), [`ended`](Self::ended), [`stop_string`](Self::stop_string)
/// and [`cancel`](Self::cancel), in any order; after each, [`next_command`](Self::next_command)
/// says what to do, until it is `None`. Whatever the order:
///
/// - tokens are emitted once each, in order, within the budget, and never after a choice's finish;
/// - each attempt is dispatched once, and what is left of it at the end is aborted once;
/// - the outcome, once there is one, stays, and nothing is dispatched after it.
#[derive(Clone, Debug)]
pub struct Request {
    plan: Plan,
    choices: Vec<Choice>,
    waiting: VecDeque<u32>,
    aborts: VecDeque<AttemptId>,
    unfinished: usize,
    outcome: Option<Outcome>,
    timing: Timing,
}

impl Request {
    /// Takes a request that arrived at `now`, on a clock of the caller's that all later times are
    /// of.
    ///
    /// # Errors
    ///
    /// `InvalidRequest`: `context_length_exceeded` if a prompt with what is asked for does not fit
    /// the context, `empty_prompt` if one has no token, `empty_request` if there is nothing to do.
    pub fn new(plan: Plan, now: Duration) -> Result<Self, Error> {
        plan.check()?;
        let choices = plan.choices();
        Ok(Self {
            choices: (0..choices).map(|_| Choice::new()).collect(),
            waiting: (0..choices).collect(),
            aborts: VecDeque::new(),
            unfinished: choices as usize,
            outcome: None,
            timing: Timing {
                arrived: now,
                ..Timing::default()
            },
            plan,
        })
    }

    /// What is to be done next: first what is to be aborted, then what is to be dispatched in order
    /// of the choices.
    pub fn next_command(&mut self) -> Option<Command> {
        if let Some(attempt) = self.aborts.pop_front() {
            return Some(Command::Abort(attempt));
        }
        let index = self.waiting.pop_front()?;
        let choice = &mut self.choices[index as usize];
        let attempt = AttemptId {
            choice: index,
            number: choice.attempts,
        };
        choice.attempts += 1;
        choice.tries += 1;
        choice.state = State::Running { begun: false };
        let request = Box::new(self.plan.generate_request(index, &choice.emitted));
        Some(Command::Dispatch { attempt, request })
    }

    /// An attempt's output came. `None` if there is nothing in it for the client: it is of an
    /// attempt that is not wanted any more, or it broke the engine's contract, which fails the
    /// attempt.
    pub fn output(
        &mut self,
        attempt: AttemptId,
        output: GenerateOutput,
        now: Duration,
    ) -> Option<Step> {
        let choice = self.current(attempt)?;
        let begun = match choice.state {
            State::Running { begun } => begun,
            State::Ended {
                by_engine: true, ..
            } => {
                self.fail(Violation::OutputAfterFinish.into());
                return None;
            }
            State::Waiting | State::Ended { .. } | State::Abandoned => return None,
        };
        let contract = Contract {
            prompt_tokens: self.plan.prompts[self.plan.prompt_of(attempt.choice)].len(),
            budget: self.plan.budget(attempt.choice),
            logprobs: self.plan.output.logprobs.is_some(),
            stop: &self.plan.stop,
        };
        match choice.check(begun, &output, contract) {
            Ok(end) => self.accept(attempt, output, end, now),
            Err(violation) => {
                self.aborts.push_back(attempt);
                self.attempt_broke(attempt, violation.into());
                None
            }
        }
    }

    /// An attempt failed, before its stream or in it; its stream has ended.
    pub fn failed(&mut self, attempt: AttemptId, error: Error) {
        if self.is_running(attempt) {
            self.attempt_broke(attempt, error);
        }
    }

    /// The engine of an attempt takes none any more because somebody wants it so, such as one that
    /// is replaced, which the request has no part in: where the attempt had not begun, it is none of
    /// the [`max_attempts`](Plan::max_attempts), and where it gave a token, the next one is the first
    /// after that. Whoever runs attempts does not give the engine the choice again before that has
    /// changed.
    pub fn declined(&mut self, attempt: AttemptId, error: Error) {
        if self.is_running(attempt) {
            let choice = &mut self.choices[attempt.choice as usize];
            if choice.state == (State::Running { begun: false }) {
                choice.tries -= 1;
            }
            self.attempt_failed(attempt, error);
        }
    }

    /// There is no engine for an attempt, and there will be none for another one: the request fails
    /// with what the client should be told.
    pub fn unplaceable(&mut self, attempt: AttemptId, error: Error) {
        if self.is_running(attempt) {
            self.choices[attempt.choice as usize].state = State::Waiting;
            self.attempts_over(attempt.choice, error);
        }
    }

    /// An attempt's stream ended, as it should after its finish.
    pub fn ended(&mut self, attempt: AttemptId) {
        self.failed(attempt, Violation::Unfinished.into());
    }

    /// Within the choice's last [`Step`] its text reached the stop string that is `index`-th in the
    /// request's list; only the first `kept_tokens` of that step's tokens belong to the answer.
    ///
    /// That is the choice's finish even if the step had another one. Nothing happens if the choice
    /// has ended otherwise.
    pub fn stop_string(&mut self, choice: u32, index: usize, kept_tokens: usize) {
        let Some(stopped) = self.choices.get_mut(choice as usize) else {
            return;
        };
        let by_engine = match stopped.state {
            State::Running { begun: true } => false,
            // Its attempt failed right after that step.
            State::Waiting if stopped.attempts > 0 => false,
            State::Ended {
                finish: Finish::StopString(_),
                ..
            } => return,
            State::Ended { by_engine, .. } => by_engine,
            State::Running { begun: false } | State::Waiting | State::Abandoned => return,
        };
        let unused = stopped.last_output_tokens.saturating_sub(kept_tokens);
        stopped.emitted.truncate(stopped.emitted.len() - unused);
        stopped.last_output_tokens -= unused;
        let finish = Finish::StopString(index);
        match std::mem::replace(&mut stopped.state, State::Ended { finish, by_engine }) {
            State::Running { .. } => {
                self.abort(choice);
                self.choice_finished();
            }
            State::Waiting => {
                self.waiting.retain(|&waiting| waiting != choice);
                self.choice_finished();
            }
            State::Ended { .. } | State::Abandoned => {}
        }
    }

    /// The client does not want the request any more. Nothing happens if it has ended.
    pub fn cancel(&mut self) {
        self.end(Outcome::Cancelled);
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// What was asked.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The tokens of a choice so far, of all its attempts.
    ///
    /// # Panics
    ///
    /// If there is no such choice.
    pub fn emitted(&self, choice: u32) -> &[TokenId] {
        &self.choices[choice as usize].emitted
    }

    /// Why a choice's attempt before the present one failed; `None` at the first.
    ///
    /// # Panics
    ///
    /// If there is no such choice.
    pub fn failure(&self, choice: u32) -> Option<&Error> {
        self.choices[choice as usize].failure.as_ref()
    }

    /// How many attempts each choice has left at least, with the present one: the
    /// [`max_attempts`](Plan::max_attempts) of the same request where it is planned anew.
    pub fn attempts_left(&self) -> NonZeroU32 {
        let failed = (self.choices.iter()).map(|c| c.tries.saturating_sub(1).max(c.broken));
        let left = self.plan.max_attempts.get() - failed.max().unwrap_or(0);
        NonZeroU32::new(left).unwrap_or(NonZeroU32::MIN)
    }

    /// Why a choice ended; `None` while it has not, and if the request ended before it.
    ///
    /// # Panics
    ///
    /// If there is no such choice.
    pub fn finish(&self, choice: u32) -> Option<Finish> {
        self.choices[choice as usize].finish()
    }

    /// What it took so far: each prompt's tokens once, and the tokens of all choices.
    ///
    /// Of a prompt's cached tokens it counts what the choice with the fewest took from the KV cache:
    /// the first choice that ran found what was there before the request, the others may also have
    /// found what that one computed.
    pub fn usage(&self) -> Usage {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let prompt_tokens = count(self.plan.prompts.iter().map(Vec::len).sum());
        let completion_tokens = count(self.choices.iter().map(|c| c.emitted.len()).sum());
        let cached_tokens = self
            .choices
            .chunks(self.plan.choices_per_prompt as usize)
            .map(|choices| choices.iter().filter_map(|c| c.cached_tokens).min())
            .fold(0_u32, |sum, cached| sum.saturating_add(cached.unwrap_or(0)));
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens }),
            completion_tokens_details: None,
        }
    }

    /// When things happened.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    fn accept(
        &mut self,
        attempt: AttemptId,
        output: GenerateOutput,
        end: End,
        now: Duration,
    ) -> Option<Step> {
        let choice = &mut self.choices[attempt.choice as usize];
        choice.state = State::Running { begun: true };
        if let Some(usage) = output.prompt {
            choice.cached_tokens.get_or_insert(usage.cached_tokens);
        }
        choice.emitted.extend_from_slice(&output.token_ids);
        choice.last_output_tokens = output.token_ids.len();
        let mut since_last_token = None;
        if !output.token_ids.is_empty() {
            (choice.tries, choice.retry_after) = (1, None);
            let last = choice.last_token_at.replace(now);
            since_last_token = last.map(|last| now.saturating_sub(last));
            self.timing.first_token.get_or_insert(now);
            self.timing.last_token = Some(now);
        }
        let used_up = choice.emitted.len() >= self.plan.budget(attempt.choice) as usize;
        let ended = match end {
            End::Finish(finish) => Some((finish, true)),
            // The engine need not be asked to say so.
            End::No | End::Cancelled if used_up => Some((Finish::Length, false)),
            End::No => None,
            End::Cancelled => {
                self.attempt_broke(attempt, given_up());
                None
            }
        };
        if let Some((finish, by_engine)) = ended {
            self.choices[attempt.choice as usize].state = State::Ended { finish, by_engine };
            if !by_engine {
                self.abort(attempt.choice);
            }
            self.choice_finished();
        }
        Some(Step {
            tokens: output.token_ids,
            logprobs: output.logprobs,
            finish: ended.map(|(finish, _)| finish),
            since_last_token,
        })
    }

    /// The attempt's choice, if no later attempt has taken its place.
    fn current(&self, attempt: AttemptId) -> Option<&Choice> {
        self.choices
            .get(attempt.choice as usize)
            .filter(|choice| choice.attempts.checked_sub(1) == Some(attempt.number))
    }

    fn is_running(&self, attempt: AttemptId) -> bool {
        self.current(attempt)
            .is_some_and(|choice| matches!(choice.state, State::Running { .. }))
    }

    /// The running attempt has failed: if it had begun, the request may be what broke the engine,
    /// and more tokens do not make up for that.
    fn attempt_broke(&mut self, attempt: AttemptId, error: Error) {
        let choice = &mut self.choices[attempt.choice as usize];
        if choice.state == (State::Running { begun: true }) {
            choice.broken += 1;
        }
        self.attempt_failed(attempt, error);
    }

    /// The running attempt has ended without its choice's finish: there is another one, or the
    /// request fails.
    fn attempt_failed(&mut self, attempt: AttemptId, error: Error) {
        let choice = &mut self.choices[attempt.choice as usize];
        choice.state = State::Waiting;
        choice.heard_retry_after(error.retry_after);
        let most = self.plan.max_attempts.get();
        if choice.tries.max(choice.broken) < most && lies_in_the_engine(&error) {
            choice.failure = Some(error);
            self.waiting.push_back(attempt.choice);
        } else {
            self.attempts_over(attempt.choice, error);
        }
    }

    /// The choice cannot be finished. Of the engines that were too busy, the client is told the
    /// soonest time that any of them named.
    fn attempts_over(&mut self, choice: u32, mut error: Error) {
        if lies_in_the_engine(&error) {
            let choice = &mut self.choices[choice as usize];
            choice.heard_retry_after(error.retry_after);
            error.retry_after = choice.retry_after;
        }
        self.fail(error);
    }

    fn choice_finished(&mut self) {
        self.unfinished -= 1;
        if self.unfinished == 0 {
            self.outcome.get_or_insert(Outcome::Finished);
        }
    }

    fn fail(&mut self, error: Error) {
        self.end(Outcome::Failed(error));
    }

    /// Ends the request before all choices have finished.
    fn end(&mut self, outcome: Outcome) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(outcome);
        self.waiting.clear();
        for index in 0..self.plan.choices() {
            match self.choices[index as usize].state {
                State::Running { .. } => self.abort(index),
                State::Waiting => {}
                State::Ended { .. } | State::Abandoned => continue,
            }
            self.choices[index as usize].state = State::Abandoned;
        }
    }

    /// The choice's current attempt is of no use any more.
    fn abort(&mut self, choice: u32) {
        let number = self.choices[choice as usize].attempts - 1;
        self.aborts.push_back(AttemptId { choice, number });
    }
}

/// Whether another engine may succeed where this error came from.
fn lies_in_the_engine(error: &Error) -> bool {
    match error.class {
        ErrorClass::CapacityExhausted | ErrorClass::Unavailable | ErrorClass::BackendProtocol => {
            true
        }
        ErrorClass::InvalidRequest
        | ErrorClass::Unauthenticated
        | ErrorClass::PermissionDenied
        | ErrorClass::NotFound
        | ErrorClass::Conflict
        | ErrorClass::TooLarge
        | ErrorClass::Unsupported
        | ErrorClass::RateLimited
        | ErrorClass::Deadline
        | ErrorClass::NotImplemented
        | ErrorClass::Internal
        | ErrorClass::Cancelled => false,
    }
}

/// The engine cancelled what nobody asked it to.
fn given_up() -> Error {
    Error::new(
        ErrorClass::Unavailable,
        "generation_cancelled",
        "the engine cancelled the generation",
    )
}
