//! What holds whatever happens, in every order: all short histories, and long random ones.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use forebay_pipeline::{AttemptId, Command, Finish, Outcome, Plan, Request};
use forebay_protocols::worker::{FinishReason, GenerateOutput, PromptUsage};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{RequestId, TokenId};
use proptest::prelude::*;

const CHOICES: u32 = 2;
const BUDGET: usize = 4;
const ATTEMPTS: u32 = 2;
const EOS: TokenId = 0;

/// What every attempt at a choice generates at a position, as one seed demands.
fn token(choice: u32, position: usize) -> TokenId {
    1 + 100 * choice + position as u32
}

/// Something that happens; attempts are told by their place among those dispatched so far.
#[derive(Clone, Copy, Debug)]
enum Action {
    Command,
    /// The attempt's stream gives this many tokens.
    Tokens {
        attempt: usize,
        count: usize,
    },
    /// The stream gives tokens and its finish.
    Finish {
        attempt: usize,
        count: usize,
        reason: FinishReason,
    },
    /// Either, and the text reaches a stop string after `kept` of the tokens.
    StopString {
        attempt: usize,
        count: usize,
        reason: FinishReason,
        kept: usize,
    },
    /// An output that no engine must send.
    Violation {
        attempt: usize,
    },
    Failed {
        attempt: usize,
        retry: bool,
    },
    /// Its engine takes none at present.
    Declined {
        attempt: usize,
    },
    /// There is no engine for the attempt.
    Unplaceable {
        attempt: usize,
    },
    Ended {
        attempt: usize,
    },
    Cancel,
}

/// What a test knows of an attempt that was dispatched.
#[derive(Clone, Debug)]
struct Attempt {
    id: AttemptId,
    begun: bool,
    position: usize,
    /// Its stream is over, or it has said its finish.
    over: bool,
    aborted: bool,
    /// It has failed.
    broken: bool,
}

/// A request, and what its client and the engines have seen.
#[derive(Clone, Debug)]
struct World {
    request: Request,
    attempts: Vec<Attempt>,
    /// By choice, what the client was given.
    given: BTreeMap<u32, Vec<TokenId>>,
    /// By choice, the attempts since its last token, with the one that it came from and without
    /// those that were declined.
    tries: [u32; CHOICES as usize],
    /// By choice, the attempts that had begun and failed.
    broken: [u32; CHOICES as usize],
}

impl World {
    fn new() -> Self {
        let id = RequestId::new("r").unwrap();
        let mut plan = Plan::new(id, "m", vec![vec![7, 7]], 100);
        plan.choices_per_prompt = CHOICES;
        plan.stop.max_tokens = Some(BUDGET as u32);
        plan.stop.eos_token_ids = vec![EOS];
        plan.max_attempts = NonZeroU32::new(ATTEMPTS).unwrap();
        Self {
            request: Request::new(plan, Duration::ZERO).unwrap(),
            attempts: Vec::new(),
            given: (0..CHOICES).map(|choice| (choice, Vec::new())).collect(),
            tries: [0; CHOICES as usize],
            broken: [0; CHOICES as usize],
        }
    }

    /// Lets it happen, and checks everything. `false` if it cannot happen now.
    fn act(&mut self, action: Action) -> bool {
        let outcome = self.request.outcome().cloned();
        let finishes: Vec<_> = (0..CHOICES).map(|c| self.request.finish(c)).collect();
        let possible = match action {
            Action::Command => self.command(outcome.is_some()),
            Action::Cancel => {
                self.request.cancel();
                true
            }
            Action::Tokens { attempt, count } => {
                self.output(attempt, count, FinishReason::Unspecified, None)
            }
            Action::StopString {
                attempt,
                count,
                reason,
                kept,
            } => self.output(attempt, count, reason, Some(kept)),
            Action::Finish {
                attempt,
                count,
                reason,
            } => self.output(attempt, count, reason, None),
            Action::Violation { attempt } => {
                self.breaks(attempt);
                self.violation(attempt)
            }
            Action::Failed { attempt, retry } => {
                self.breaks(attempt);
                let class = match retry {
                    true => ErrorClass::Unavailable,
                    false => ErrorClass::Internal,
                };
                self.end(attempt, |request, id| {
                    request.failed(id, Error::new(class, "failed", "failed"));
                })
            }
            Action::Declined { attempt } => {
                let possible = self
                    .attempts
                    .get(attempt)
                    .is_some_and(|a| !a.begun && !a.over);
                possible && {
                    let tries = &mut self.tries[self.attempts[attempt].id.choice as usize];
                    *tries = tries.saturating_sub(1);
                    self.end(attempt, |request, id| {
                        request.declined(id, Error::new(ErrorClass::Unavailable, "no", "no"));
                    })
                }
            }
            Action::Unplaceable { attempt } => {
                let possible = self.attempts.get(attempt).is_some_and(|a| !a.begun);
                possible
                    && self.end(attempt, |request, id| {
                        request.unplaceable(id, Error::internal("no engine"));
                    })
            }
            Action::Ended { attempt } => {
                self.breaks(attempt);
                self.end(attempt, Request::ended)
            }
        };
        if let Some(outcome) = outcome {
            assert_eq!(self.request.outcome(), Some(&outcome), "an outcome stays");
        }
        for (choice, before) in (0..).zip(finishes) {
            let now = self.request.finish(choice);
            assert!(before.is_none() || before == now, "a finish stays");
        }
        self.check();
        possible
    }

    fn command(&mut self, ended: bool) -> bool {
        match self.request.next_command() {
            None => return false,
            Some(Command::Abort(id)) => {
                let attempt = self.attempts.iter_mut().find(|a| a.id == id);
                let attempt = attempt.expect("what is aborted was dispatched");
                assert!(!attempt.aborted, "aborted twice");
                attempt.aborted = true;
            }
            Some(Command::Dispatch {
                attempt: id,
                request,
            }) => {
                assert!(!ended, "dispatched after the end");
                let earlier = self.attempts.iter().filter(|a| a.id.choice == id.choice);
                assert_eq!(
                    id.number as usize,
                    earlier.count(),
                    "each attempt once, in order"
                );
                let tries = &mut self.tries[id.choice as usize];
                *tries += 1;
                assert!(*tries <= ATTEMPTS);
                assert!(self.broken[id.choice as usize] < ATTEMPTS);
                assert_eq!(request.choice_index, id.choice);
                assert_eq!(request.prompt_token_ids, [7, 7]);
                assert_eq!(request.emitted_token_ids, self.given[&id.choice]);
                assert!(request.emitted_token_ids.len() < BUDGET);
                self.attempts.push(Attempt {
                    id,
                    begun: false,
                    position: request.emitted_token_ids.len(),
                    over: false,
                    aborted: false,
                    broken: false,
                });
            }
        }
        true
    }

    fn output(
        &mut self,
        attempt: usize,
        count: usize,
        reason: FinishReason,
        stop_string: Option<usize>,
    ) -> bool {
        let Some(attempt) = self.attempts.get_mut(attempt).filter(|a| !a.over) else {
            return false;
        };
        // The engine keeps its contract.
        if attempt.position + count > BUDGET || (reason == FinishReason::Stop && count == 0) {
            return false;
        }
        let choice = attempt.id.choice;
        let mut token_ids: Vec<_> = (attempt.position..attempt.position + count)
            .map(|position| token(choice, position))
            .collect();
        if reason == FinishReason::Stop {
            *token_ids.last_mut().unwrap() = EOS;
        }
        let output = GenerateOutput {
            token_ids: token_ids.clone(),
            prompt: (!attempt.begun).then_some(PromptUsage {
                prompt_tokens: 2,
                cached_tokens: 0,
            }),
            finish_reason: reason.into(),
            ..Default::default()
        };
        attempt.begun = true;
        attempt.position += count;
        attempt.over = reason != FinishReason::Unspecified;
        let Some(step) = self.request.output(attempt.id, output, Duration::ZERO) else {
            return true;
        };
        assert_eq!(step.tokens, token_ids);
        let given = self.given.get_mut(&choice).unwrap();
        given.extend(&step.tokens);
        if !step.tokens.is_empty() {
            self.tries[choice as usize] = 1;
        }
        if let Some(kept) = stop_string {
            // The token that is a stop has no text.
            let kept = kept.min(step.tokens.len() - usize::from(reason == FinishReason::Stop));
            self.request.stop_string(choice, 3, kept);
            match self.request.finish(choice) {
                Some(finish) => assert_eq!(finish, Finish::StopString(3)),
                None => assert!(self.cut_short(), "only a failure prevents it"),
            }
            if !self.cut_short() {
                let unused = count - kept;
                let given = self.given.get_mut(&choice).unwrap();
                given.truncate(given.len() - unused);
            }
        }
        true
    }

    /// The attempt fails, if it is wanted.
    fn breaks(&mut self, attempt: usize) {
        let Some(attempt) = self.attempts.get_mut(attempt) else {
            return;
        };
        let choice = attempt.id.choice;
        let is_wanted = self.request.outcome().is_none() && self.request.finish(choice).is_none();
        if is_wanted && !attempt.over && !attempt.broken {
            attempt.broken = true;
            self.broken[choice as usize] += u32::from(attempt.begun);
        }
    }

    fn violation(&mut self, attempt: usize) -> bool {
        let Some(attempt) = self.attempts.get(attempt).filter(|a| !a.over) else {
            return false;
        };
        let output = GenerateOutput {
            token_ids: vec![token(attempt.id.choice, attempt.position); BUDGET + 1],
            ..Default::default()
        };
        assert_eq!(
            self.request.output(attempt.id, output, Duration::ZERO),
            None
        );
        true
    }

    fn end(&mut self, attempt: usize, end: impl Fn(&mut Request, AttemptId)) -> bool {
        let Some(attempt) = self.attempts.get_mut(attempt) else {
            return false;
        };
        attempt.over = true;
        end(&mut self.request, attempt.id);
        true
    }

    fn check(&self) {
        for choice in 0..CHOICES {
            let emitted = self.request.emitted(choice);
            assert_eq!(emitted, self.given[&choice], "the ledger is what was given");
            assert!(emitted.len() <= BUDGET);
            for (position, &found) in emitted.iter().enumerate() {
                let ends = position + 1 == emitted.len() && found == EOS;
                assert!(ends || found == token(choice, position), "lost or repeated");
            }
            let finish = self.request.finish(choice);
            let by_eos = finish == Some(Finish::EndOfSequence);
            assert_eq!(by_eos, emitted.last() == Some(&EOS));
        }
        let all_finished = (0..CHOICES).all(|choice| self.request.finish(choice).is_some());
        let finished = self.request.outcome() == Some(&Outcome::Finished);
        assert_eq!(finished, all_finished && !self.cut_short());
        let usage = self.request.usage();
        let given: usize = self.given.values().map(Vec::len).sum();
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens as usize),
            (2, given)
        );
    }

    fn cut_short(&self) -> bool {
        matches!(
            self.request.outcome(),
            Some(Outcome::Cancelled | Outcome::Failed(_))
        )
    }

    /// The client leaves: nothing may go on.
    fn leave(mut self) {
        self.act(Action::Cancel);
        while self.act(Action::Command) {}
        for attempt in &self.attempts {
            assert!(attempt.over || attempt.aborted, "{attempt:?} goes on");
        }
    }
}

fn all_actions() -> Vec<Action> {
    let mut actions = vec![Action::Command, Action::Cancel];
    for attempt in 0..2 {
        actions.extend([
            Action::Tokens { attempt, count: 1 },
            Action::StopString {
                attempt,
                count: 2,
                reason: FinishReason::Unspecified,
                kept: 1,
            },
            Action::StopString {
                attempt,
                count: 2,
                reason: FinishReason::Cancelled,
                kept: 1,
            },
            Action::Finish {
                attempt,
                count: 1,
                reason: FinishReason::Stop,
            },
            Action::Finish {
                attempt,
                count: 0,
                reason: FinishReason::Length,
            },
            Action::Finish {
                attempt,
                count: 1,
                reason: FinishReason::Cancelled,
            },
            Action::Violation { attempt },
            Action::Failed {
                attempt,
                retry: true,
            },
            Action::Failed {
                attempt,
                retry: false,
            },
            Action::Declined { attempt },
            Action::Unplaceable { attempt },
            Action::Ended { attempt },
        ]);
    }
    actions
}

#[test]
fn every_short_history() {
    fn go_on(world: &World, actions: &[Action], depth: u32) -> u64 {
        world.clone().leave();
        if depth == 0 {
            return 1;
        }
        let mut histories = 0;
        for &action in actions {
            let mut next = world.clone();
            if next.act(action) {
                histories += go_on(&next, actions, depth - 1);
            }
        }
        histories
    }
    let histories = go_on(&World::new(), &all_actions(), 7);
    assert!(
        histories > 500_000,
        "only {histories} histories were possible"
    );
}

fn action() -> impl Strategy<Value = Action> {
    let attempt = 0..4_usize;
    let count = 0..=BUDGET;
    let any_reason = prop_oneof![
        Just(FinishReason::Unspecified),
        Just(FinishReason::Stop),
        Just(FinishReason::Length),
        Just(FinishReason::Cancelled),
    ];
    let reason = prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::Length),
        Just(FinishReason::Cancelled),
    ];
    prop_oneof![
        8 => Just(Action::Command),
        8 => (attempt.clone(), 0..=2_usize)
            .prop_map(|(attempt, count)| Action::Tokens { attempt, count }),
        1 => (attempt.clone(), count.clone(), any_reason, count.clone()).prop_map(
            |(attempt, count, reason, kept)| Action::StopString { attempt, count, reason, kept }
        ),
        2 => (attempt.clone(), count, reason)
            .prop_map(|(attempt, count, reason)| Action::Finish { attempt, count, reason }),
        1 => attempt.clone().prop_map(|attempt| Action::Violation { attempt }),
        2 => (attempt.clone(), prop::bool::weighted(0.9))
            .prop_map(|(attempt, retry)| Action::Failed { attempt, retry }),
        1 => attempt.clone().prop_map(|attempt| Action::Declined { attempt }),
        1 => attempt.clone().prop_map(|attempt| Action::Unplaceable { attempt }),
        1 => attempt.prop_map(|attempt| Action::Ended { attempt }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn long_histories(actions in prop::collection::vec(action(), 0..60)) {
        let mut world = World::new();
        for action in actions {
            world.act(action);
        }
        world.leave();
    }
}
