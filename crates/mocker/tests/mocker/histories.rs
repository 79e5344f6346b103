//! Any history of requests, aborts, faults and late looks: every token is the one that must stand
//! there, every choice ends, and nothing stays behind.

use std::collections::{HashMap, HashSet};

use forebay_batch_scheduler::SequenceId;
use forebay_mocker::{Answer, Fault, MockerConfig};
use forebay_protocols::worker::{FinishReason, GenerateRequest};
use forebay_tokens::{KvEvent, RoutingHash, TokenId};
use proptest::prelude::*;

use crate::driver::{Driver, Heard, config, ms, request};

#[derive(Clone, Debug)]
enum Action {
    /// A prompt of one of a few families, whose prefixes are common.
    Submit {
        family: u32,
        length: usize,
        max_tokens: u32,
        emitted: usize,
        priority: i32,
    },
    /// The n-th of the requests so far.
    Abort(usize),
    /// So many milliseconds pass without anybody looking.
    Sleep(u64),
    Advance,
    Stall(u8),
    Slow(u8),
    ClearCache,
    Pause,
    Resume,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..3_u32, 1..60_usize, 1..30_u32, 0..10_usize, -1..2_i32).prop_map(
            |(family, length, max_tokens, emitted, priority)| Action::Submit {
                family, length, max_tokens, emitted, priority,
            }
        ),
        1 => any::<usize>().prop_map(Action::Abort),
        2 => (0..40_u64).prop_map(Action::Sleep),
        8 => Just(Action::Advance),
        1 => any::<u8>().prop_map(Action::Stall),
        1 => (1..9_u8).prop_map(Action::Slow),
        1 => Just(Action::ClearCache),
        1 => Just(Action::Pause),
        2 => Just(Action::Resume),
    ]
}

/// What a router knows of the cache.
#[derive(Default)]
struct Mirror(HashSet<RoutingHash>);

impl Mirror {
    fn apply(&mut self, events: Vec<KvEvent>) {
        for event in events {
            match event {
                KvEvent::Stored { blocks, .. } => self.0.extend(blocks),
                KvEvent::Removed { blocks, .. } => blocks.iter().for_each(|block| {
                    assert!(self.0.remove(block), "it was not there");
                }),
                KvEvent::Cleared { .. } => self.0.clear(),
            }
        }
    }
}

struct Expected {
    tokens: Vec<TokenId>,
    resumed: bool,
    aborted: bool,
}

/// Runs a history, and gives all that was heard.
fn run(config: &MockerConfig, actions: &[Action]) -> Vec<(SequenceId, Heard)> {
    let mut driver = Driver::new(config);
    let mut mirror = Mirror::default();
    let mut expected: HashMap<SequenceId, Expected> = HashMap::new();
    for (n, action) in actions.iter().enumerate() {
        match action {
            Action::Submit {
                family,
                length,
                max_tokens,
                emitted,
                priority,
            } => {
                let prompt: Vec<_> = (0..*length as u32).map(|i| family * 1_000 + i).collect();
                let asked = GenerateRequest {
                    priority: *priority,
                    ..request(&format!("r{n}"), &prompt, *max_tokens)
                };
                let answer = Answer::new(&asked, config.answer_vocabulary());
                let known: Vec<_> = (0..*max_tokens as usize)
                    .map(|at| answer.token(at))
                    .collect();
                let emitted = (*emitted).min(known.len() - 1);
                let asked = GenerateRequest {
                    emitted_token_ids: known[..emitted].to_vec(),
                    ..asked
                };
                if let Ok(id) = driver.submit(asked) {
                    let choice = Expected {
                        tokens: known[emitted..].to_vec(),
                        resumed: emitted > 0,
                        aborted: false,
                    };
                    expected.insert(id, choice);
                }
            }
            Action::Abort(n) => {
                let id = SequenceId((n % (expected.len() + 1)) as u64);
                if let Some(last) = driver.mocker.abort(id) {
                    assert_eq!(last.finish_reason(), FinishReason::Cancelled);
                    assert!(last.token_ids.is_empty(), "all was taken");
                    expected.get_mut(&id).unwrap().aborted = true;
                }
            }
            Action::Sleep(time) => driver.now += ms(*time),
            Action::Advance => drop(driver.advance()),
            Action::Stall(time) => {
                let seconds = f64::from(*time) / 1e3;
                let now = driver.now;
                driver.mocker.inject(now, Fault::Stall { seconds }).unwrap();
            }
            Action::Slow(factor) => {
                let factor = f64::from(*factor) / 4.0;
                let now = driver.now;
                driver.mocker.inject(now, Fault::Slow { factor }).unwrap();
            }
            Action::ClearCache => driver.mocker.clear_kv_cache(),
            Action::Pause => driver.mocker.pause(),
            Action::Resume => driver.mocker.resume(),
        }
        mirror.apply(driver.mocker.take_kv_events());
    }
    driver.mocker.resume();
    driver.run();
    driver.assert_idle();
    mirror.apply(driver.mocker.take_kv_events());
    let mut present = Mirror::default();
    present.apply(driver.mocker.kv_snapshot());
    assert_eq!(mirror.0, present.0);

    for (id, expected) in &expected {
        let heard = &driver.heard[id];
        // All of it only where tokens were emitted before: the last token is always computed.
        let computed = u32::from(!expected.resumed && !heard.tokens.is_empty());
        assert!(heard.cached_tokens + computed <= heard.prompt_tokens);
        assert!(heard.at.is_sorted());
        if expected.aborted {
            assert!(expected.tokens.starts_with(&heard.tokens));
        } else {
            assert_eq!(heard.tokens, expected.tokens);
            assert_eq!(heard.finish, Some(FinishReason::Length));
        }
    }
    driver.heard.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_answer_is_whole_and_nothing_stays(
        actions in prop::collection::vec(action(), 1..60),
        kv_blocks in 25..60_u32,
        max_batch_tokens in 8..40_usize,
        speed in prop_oneof![Just(0.0), Just(1.0)],
    ) {
        let config = MockerConfig { kv_blocks, max_batch_tokens, speed, ..config() };
        let heard = run(&config, &actions);
        prop_assert_eq!(heard, run(&config, &actions));
    }
}
