//! What a request does, one case at a time.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::time::Duration;

use forebay_pipeline::{AttemptId, Command, Finish, Outcome, Plan, Request};
use forebay_protocols::worker::{FinishReason, GenerateOutput, PromptUsage, TokenLogprobs};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::RequestId;

const NOW: Duration = Duration::ZERO;

fn plan(choices: u32, max_tokens: u32, attempts: u32) -> Plan {
    let id = RequestId::new("r").unwrap();
    let mut plan = Plan::new(id, "m", vec![vec![1, 2, 3]], 100);
    plan.choices_per_prompt = choices;
    plan.stop.max_tokens = Some(max_tokens);
    plan.stop.eos_token_ids = vec![0];
    plan.stop.stop_token_ids = vec![99];
    plan.max_attempts = NonZeroU32::new(attempts).unwrap();
    plan
}

/// A request all of whose first attempts were dispatched.
fn dispatched(plan: Plan) -> Request {
    let mut request = Request::new(plan, NOW).unwrap();
    for choice in 0..request.plan().choices() {
        let command = request.next_command();
        let expected = first(choice);
        assert!(matches!(command, Some(Command::Dispatch { attempt, .. }) if attempt == expected));
    }
    assert_eq!(request.next_command(), None);
    request
}

fn first(choice: u32) -> AttemptId {
    AttemptId { choice, number: 0 }
}

fn opening(tokens: &[u32], cached_tokens: u32) -> GenerateOutput {
    GenerateOutput {
        prompt: Some(PromptUsage {
            prompt_tokens: 3,
            cached_tokens,
        }),
        ..more(tokens)
    }
}

fn more(tokens: &[u32]) -> GenerateOutput {
    GenerateOutput {
        token_ids: tokens.to_vec(),
        ..Default::default()
    }
}

fn last(tokens: &[u32], reason: FinishReason) -> GenerateOutput {
    GenerateOutput {
        finish_reason: reason.into(),
        ..more(tokens)
    }
}

fn unavailable() -> Error {
    Error::new(ErrorClass::Unavailable, "gone", "gone")
}

fn failure(request: &Request) -> &Error {
    match request.outcome() {
        Some(Outcome::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_way_to_finish() {
    let stop_token = GenerateOutput {
        matched_stop_token: Some(99),
        ..last(&[5, 99], FinishReason::Stop)
    };
    let cases = [
        (last(&[5, 0], FinishReason::Stop), Finish::EndOfSequence),
        (stop_token, Finish::StopToken(99)),
        (last(&[5, 6], FinishReason::Length), Finish::Length),
        (last(&[], FinishReason::Length), Finish::Length),
    ];
    for (output, finish) in cases {
        let mut request = dispatched(plan(1, 10, 1));
        request.output(first(0), opening(&[4], 0), NOW);
        let step = request.output(first(0), output, NOW).unwrap();
        assert_eq!(step.finish, Some(finish));
        assert_eq!(request.finish(0), Some(finish));
        request.ended(first(0));
        assert_eq!(request.outcome(), Some(&Outcome::Finished));
        assert_eq!(request.next_command(), None);
    }
}

#[test]
fn a_stop_string_ends_a_choice_in_the_engine_and_cuts_its_tokens() {
    let mut request = dispatched(plan(2, 10, 1));
    request.output(first(0), opening(&[4, 5, 6, 7], 0), NOW);
    request.stop_string(0, 1, 2);
    assert_eq!(request.next_command(), Some(Command::Abort(first(0))));
    assert_eq!(request.emitted(0), [4, 5]);
    assert_eq!(request.finish(0), Some(Finish::StopString(1)));
    // What was under way comes too late, and is no fault of the engine's.
    assert_eq!(request.output(first(0), more(&[8]), NOW), None);
    request.ended(first(0));
    assert_eq!(request.outcome(), None);

    // The last output had a finish of its own.
    request.output(first(1), opening(&[], 0), NOW);
    request.output(first(1), last(&[4, 5, 6], FinishReason::Length), NOW);
    assert_eq!(request.outcome(), Some(&Outcome::Finished));
    request.stop_string(1, 0, 1);
    assert_eq!(request.finish(1), Some(Finish::StopString(0)));
    assert_eq!(request.next_command(), None);
    assert_eq!(request.usage().completion_tokens, 3);
}

#[test]
fn the_budget_ends_a_choice() {
    let mut request = dispatched(plan(1, 2, 1));
    let step = request.output(first(0), opening(&[4, 5], 0), NOW).unwrap();
    assert_eq!(step.finish, Some(Finish::Length));
    assert_eq!(request.next_command(), Some(Command::Abort(first(0))));
    // An engine may say so itself, a step later.
    request.output(first(0), last(&[], FinishReason::Length), NOW);
    assert_eq!(request.outcome(), Some(&Outcome::Finished));
}

#[test]
fn cancelling_aborts_what_runs_and_dispatches_no_more() {
    let mut request = Request::new(plan(3, 10, 1), NOW).unwrap();
    request.next_command();
    request.next_command();
    request.output(first(0), opening(&[4], 0), NOW);
    request.output(first(0), last(&[5], FinishReason::Length), NOW);
    request.cancel();
    assert_eq!(request.outcome(), Some(&Outcome::Cancelled));
    assert_eq!(request.next_command(), Some(Command::Abort(first(1))));
    assert_eq!(request.next_command(), None);
    assert_eq!(request.output(first(1), opening(&[4], 0), NOW), None);
    request.failed(first(1), unavailable());
    assert_eq!(request.outcome(), Some(&Outcome::Cancelled));
    assert_eq!(request.finish(0), Some(Finish::Length));
    assert_eq!(request.finish(2), None);
}

#[test]
fn a_failed_choice_fails_the_request() {
    let mut request = dispatched(plan(2, 10, 1));
    request.failed(first(1), unavailable());
    assert_eq!(failure(&request), &unavailable());
    assert_eq!(request.next_command(), Some(Command::Abort(first(0))));
    assert_eq!(request.next_command(), None);
}

#[test]
fn the_next_attempt_goes_on_after_what_was_emitted() {
    let mut request = dispatched(plan(1, 4, 2));
    request.output(first(0), opening(&[4, 5], 1), NOW);
    request.failed(first(0), unavailable());
    let second = AttemptId {
        choice: 0,
        number: 1,
    };
    let Some(Command::Dispatch {
        attempt,
        request: sent,
    }) = request.next_command()
    else {
        panic!("no second attempt");
    };
    assert_eq!(attempt, second);
    assert_eq!(request.failure(0), Some(&unavailable()));
    assert_eq!(sent.prompt_token_ids, [1, 2, 3]);
    assert_eq!(sent.emitted_token_ids, [4, 5]);
    assert_eq!(sent.stop.unwrap().max_tokens, Some(4));

    assert_eq!(request.output(first(0), more(&[7]), NOW), None);
    request.output(second, opening(&[6], 3), NOW);
    assert_eq!(request.emitted(0), [4, 5, 6]);
    // The second attempt found what the first one had left.
    let details = request.usage().prompt_tokens_details.unwrap();
    assert_eq!(details.cached_tokens, 1);
}

/// The next attempt at the only choice.
fn next_attempt(request: &mut Request) -> AttemptId {
    match request.next_command() {
        Some(Command::Dispatch { attempt, .. }) => attempt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_moves_as_often_as_engines_are_replaced() {
    let stopped = Error::new(ErrorClass::Unavailable, "worker_stopped", "stopped");
    let mut request = Request::new(plan(1, 90, 2), NOW).unwrap();
    // As often as it goes on, with one refusal each time.
    for token in 0..20 {
        let attempt = next_attempt(&mut request);
        request.output(attempt, opening(&[4 + token], 0), NOW);
        request.declined(attempt, stopped.clone());
        if token % 2 == 1 {
            continue;
        }
        let refused = next_attempt(&mut request);
        request.declined(refused, stopped.clone());
    }
    // The next one is the second since the last token, and has none.
    let attempt = next_attempt(&mut request);
    request.output(attempt, opening(&[], 0), NOW);
    request.declined(attempt, stopped.clone());
    assert_eq!(failure(&request), &stopped);
    assert_eq!(request.emitted(0).len(), 20);
}

#[test]
fn engines_that_break_count_over_the_whole_life_of_a_choice() {
    let mut request = Request::new(plan(1, 90, 3), NOW).unwrap();
    for token in 0..3 {
        assert_eq!(request.attempts_left().get(), 3 - token);
        let attempt = next_attempt(&mut request);
        request.output(attempt, opening(&[4 + token], 0), NOW);
        request.failed(attempt, unavailable());
    }
    assert_eq!(failure(&request), &unavailable());
    assert_eq!(request.emitted(0).len(), 3);
}

#[test]
fn an_attempt_without_an_engine_s_part_is_none() {
    let paused = Error::new(ErrorClass::Unavailable, "worker_paused", "paused");
    let mut request = Request::new(plan(1, 90, 2), NOW).unwrap();
    for _ in 0..20 {
        let attempt = next_attempt(&mut request);
        request.declined(attempt, paused.clone());
        assert_eq!(request.failure(0), Some(&paused));
    }
    for _ in 0..2 {
        let attempt = next_attempt(&mut request);
        request.failed(attempt, unavailable());
    }
    assert_eq!(failure(&request), &unavailable());

    // One that has begun had its part in it.
    let mut request = dispatched(plan(1, 90, 1));
    request.output(first(0), opening(&[], 0), NOW);
    request.declined(first(0), paused.clone());
    assert_eq!(failure(&request), &paused);
}

#[test]
fn attempts_that_are_left_are_those_of_the_choice_that_failed_most() {
    let mut request = Request::new(plan(2, 90, 3), NOW).unwrap();
    assert_eq!(request.attempts_left().get(), 3);
    let attempts = [next_attempt(&mut request), next_attempt(&mut request)];
    assert_eq!(request.attempts_left().get(), 3);
    let mut attempt = attempts[1];
    for left in [2, 1] {
        request.failed(attempt, unavailable());
        attempt = next_attempt(&mut request);
        assert_eq!((attempt.choice, request.attempts_left().get()), (1, left));
    }
}

#[test]
fn a_fault_of_the_request_is_not_tried_again() {
    let mut request = dispatched(plan(1, 4, 9));
    request.failed(first(0), Error::invalid("n", "no"));
    assert_eq!(failure(&request).class, ErrorClass::InvalidRequest);
    assert_eq!(request.next_command(), None);
}

#[test]
fn where_all_engines_are_busy_the_soonest_counts() {
    let busy = |seconds| {
        Error::new(ErrorClass::CapacityExhausted, "queue_full", "full")
            .with_retry_after(Duration::from_secs(seconds))
    };
    let mut request = Request::new(plan(1, 4, 3), NOW).unwrap();
    for seconds in [3, 1, 2] {
        let Some(Command::Dispatch { attempt, .. }) = request.next_command() else {
            panic!("no attempt");
        };
        request.failed(attempt, busy(seconds));
    }
    assert_eq!(failure(&request), &busy(1));

    // The same where there are fewer engines than attempts.
    let mut request = dispatched(plan(1, 4, 9));
    request.failed(first(0), busy(1));
    let Some(Command::Dispatch { attempt, .. }) = request.next_command() else {
        panic!("no second attempt");
    };
    request.unplaceable(attempt, busy(5));
    assert_eq!(failure(&request), &busy(1));
    assert_eq!(request.next_command(), None);

    // What was heard before the choice went on is of another time.
    let mut request = dispatched(plan(1, 4, 2));
    request.failed(first(0), busy(1));
    let attempt = next_attempt(&mut request);
    request.output(attempt, opening(&[4], 0), NOW);
    request.failed(attempt, unavailable());
    let attempt = next_attempt(&mut request);
    request.failed(attempt, busy(5));
    assert_eq!(failure(&request), &busy(5));
}

#[test]
fn a_stop_string_may_come_with_the_failure_of_its_attempt() {
    let mut request = dispatched(plan(1, 9, 2));
    request.output(first(0), opening(&[4], 0), NOW);
    request.output(first(0), last(&[5, 6], FinishReason::Cancelled), NOW);
    request.stop_string(0, 0, 1);
    assert_eq!(request.next_command(), None);
    assert_eq!(request.outcome(), Some(&Outcome::Finished));
    assert_eq!(request.emitted(0), [4, 5]);
}

#[test]
fn usage_counts_each_prompt_once_and_what_was_cached_before() {
    let mut two_prompts = plan(2, 10, 1);
    two_prompts.prompts.push(vec![1, 2, 4]);
    let mut request = dispatched(two_prompts);
    for (choice, cached) in [(1, 3), (0, 1), (2, 2), (3, 3)] {
        request.output(first(choice), opening(&[5, 6], cached), NOW);
    }
    let usage = request.usage();
    assert_eq!(usage.prompt_tokens, 6);
    assert_eq!(usage.completion_tokens, 8);
    assert_eq!(usage.total_tokens, 14);
    assert_eq!(usage.prompt_tokens_details.unwrap().cached_tokens, 1 + 2);
}

#[test]
fn times_are_those_of_tokens() {
    let at = Duration::from_millis;
    let mut request = Request::new(plan(1, 10, 1), at(100)).unwrap();
    request.next_command();
    request.output(first(0), opening(&[], 0), at(110));
    assert_eq!(request.timing().time_to_first_token(), None);
    let step = request.output(first(0), more(&[4]), at(140)).unwrap();
    assert_eq!(step.since_last_token, None);
    let step = request.output(first(0), more(&[5, 6]), at(150)).unwrap();
    assert_eq!(step.since_last_token, Some(at(10)));
    assert_eq!(request.timing().time_to_first_token(), Some(at(40)));
    assert_eq!(request.timing().last_token, Some(at(150)));
}

#[test]
fn an_engine_that_breaks_its_contract_is_named() {
    let usage_of = |prompt_tokens, cached_tokens| GenerateOutput {
        prompt: Some(PromptUsage {
            prompt_tokens,
            cached_tokens,
        }),
        ..more(&[4])
    };
    let matched = |token, output| GenerateOutput {
        matched_stop_token: Some(token),
        ..output
    };
    let with_logprobs = GenerateOutput {
        logprobs: vec![TokenLogprobs::default()],
        ..more(&[4])
    };
    let unknown_reason = GenerateOutput {
        finish_reason: 77,
        ..more(&[4])
    };
    let begun = || vec![opening(&[4], 0)];
    let finished = vec![opening(&[4], 0), last(&[], FinishReason::Length)];
    let cases: Vec<(Vec<GenerateOutput>, GenerateOutput, &str)> = vec![
        (vec![], more(&[4]), "prompt_usage_invalid"),
        (vec![], usage_of(2, 0), "prompt_usage_invalid"),
        (vec![], usage_of(3, 4), "prompt_usage_invalid"),
        (begun(), opening(&[4], 0), "prompt_usage_invalid"),
        (begun(), more(&[5, 6, 7]), "budget_exceeded"),
        (begun(), with_logprobs, "logprobs_mismatch"),
        (begun(), unknown_reason, "finish_invalid"),
        (begun(), last(&[], FinishReason::Stop), "finish_invalid"),
        (
            begun(),
            matched(99, last(&[5], FinishReason::Stop)),
            "finish_invalid",
        ),
        (
            begun(),
            matched(5, last(&[5], FinishReason::Stop)),
            "finish_invalid",
        ),
        (begun(), matched(99, more(&[99])), "finish_invalid"),
        (finished, more(&[5]), "output_after_finish"),
    ];
    for (before, output, reason) in cases {
        let mut request = dispatched(plan(2, 3, 1));
        for output in before {
            request.output(first(0), output, NOW);
        }
        let emitted = request.emitted(0).to_vec();
        assert_eq!(request.output(first(0), output, NOW), None, "{reason}");
        let error = failure(&request);
        assert_eq!(
            (&*error.reason, error.class),
            (reason, ErrorClass::BackendProtocol)
        );
        assert_eq!(request.emitted(0), emitted);
    }
}

#[test]
fn a_stream_that_ends_without_a_finish_is_a_broken_contract() {
    let mut request = dispatched(plan(1, 3, 1));
    request.output(first(0), opening(&[4], 0), NOW);
    request.ended(first(0));
    assert_eq!(failure(&request).reason, "stream_unfinished");
    assert_eq!(request.next_command(), None);
}

#[test]
fn what_an_engine_cancels_unasked_is_unavailable() {
    let mut request = dispatched(plan(1, 3, 1));
    request.output(first(0), opening(&[4], 0), NOW);
    let output = last(&[5], FinishReason::Cancelled);
    let step = request.output(first(0), output, NOW).unwrap();
    assert_eq!((step.tokens, step.finish), (vec![5], None));
    assert_eq!(failure(&request).class, ErrorClass::Unavailable);
}

#[test]
fn logprobs_come_with_their_tokens_if_asked_for() {
    let mut asking = plan(1, 3, 1);
    asking.output.logprobs = Some(0);
    let mut request = dispatched(asking);
    let output = GenerateOutput {
        logprobs: vec![TokenLogprobs::default()],
        ..opening(&[4], 0)
    };
    assert_eq!(
        request
            .output(first(0), output, NOW)
            .unwrap()
            .logprobs
            .len(),
        1
    );
    assert_eq!(request.output(first(0), more(&[5]), NOW), None);
    assert_eq!(failure(&request).reason, "logprobs_mismatch");
}

#[test]
fn there_must_be_something_to_do() {
    let id = RequestId::new("r").unwrap();
    let nothing = Plan::new(id, "m", vec![], 10);
    assert_eq!(
        Request::new(nothing, NOW).unwrap_err().reason,
        "empty_request"
    );
}
