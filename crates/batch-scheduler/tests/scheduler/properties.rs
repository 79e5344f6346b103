//! Random use of a scheduler: whatever is preempted, chunked, cached, aborted or lost, every
//! sequence gets exactly its tokens.

use forebay_batch_scheduler::{Priority, Rejection, SchedulerConfig, SequenceId};
use forebay_kv_block_manager::MutableBlock;
use forebay_tokens::{CacheGroup, TokenId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fake_runner::{FakeRunner, reference, sequence};

#[derive(Clone, Debug)]
enum Op {
    /// A prompt that shares its first tokens with others of its family.
    Submit {
        family: u32,
        shared: usize,
        own: usize,
        max_new_tokens: usize,
        n_emitted: usize,
        priority: i32,
    },
    Abort {
        which: usize,
    },
    Step,
    /// A step during which a sequence is aborted.
    StepAndAbort {
        which: usize,
    },
    /// A step whose forward pass fails.
    LoseStep,
    /// Somebody beside the scheduler takes blocks, or gives them back.
    Take {
        n: usize,
    },
    GiveBack,
    ClearCache,
}

fn op() -> impl Strategy<Value = Op> {
    let submit = (
        0..3u32,
        0..24usize,
        0..4usize,
        1..12usize,
        0..4usize,
        -1..2i32,
    );
    prop_oneof![
        6 => submit.prop_map(|(family, shared, own, max_new_tokens, n_emitted, priority)| {
            Op::Submit { family, shared, own, max_new_tokens, n_emitted, priority }
        }),
        1 => any::<usize>().prop_map(|which| Op::Abort { which }),
        12 => Just(Op::Step),
        1 => any::<usize>().prop_map(|which| Op::StepAndAbort { which }),
        1 => Just(Op::LoseStep),
        1 => (1..4usize).prop_map(|n| Op::Take { n }),
        1 => Just(Op::GiveBack),
        1 => Just(Op::ClearCache),
    ]
}

fn config() -> impl Strategy<Value = (SchedulerConfig, u32)> {
    (1..6usize, 0..12usize, 1..12usize, 1..6usize, 3..14u32).prop_map(
        |(max_sequences, more, max_chunk_tokens, max_waiting, n_blocks)| {
            let config = SchedulerConfig {
                max_batch_tokens: max_sequences + more,
                max_chunk_tokens,
                max_sequences,
                max_waiting,
                context_length: 36,
            };
            (config, n_blocks)
        },
    )
}

struct Expected {
    id: u64,
    tokens: Vec<TokenId>,
    aborted: bool,
}

fn run(config: &SchedulerConfig, n_blocks: u32, ops: &[Op]) -> FakeRunner {
    let mut runner = FakeRunner::new(config.clone(), n_blocks);
    let mut expected: Vec<Expected> = vec![];
    let mut taken: Vec<MutableBlock> = vec![];
    let abort = |runner: &mut FakeRunner, expected: &mut Vec<Expected>, which: usize| {
        if !expected.is_empty() {
            let at = which % expected.len();
            let e = &mut expected[at];
            e.aborted |= runner.scheduler.abort(SequenceId(e.id));
        }
    };
    for (id, op) in (0..).zip(ops) {
        match *op {
            Op::Submit {
                family,
                shared,
                own,
                max_new_tokens,
                n_emitted,
                priority,
            } => {
                let shared = (0..shared as u32).map(|i| 100 * family + i / 2);
                let prompt: Vec<_> = shared
                    .chain((0..own as u32).map(|i| id as u32 + i))
                    .collect();
                let answer = reference(&prompt, max_new_tokens);
                let mut new = sequence(id, &prompt, max_new_tokens);
                // What was emitted before never holds the end.
                let n_emitted = n_emitted.min(answer.len() - 1);
                new.emitted = answer[..n_emitted].to_vec();
                new.priority = Priority(priority);
                let fits = prompt.len() + max_new_tokens <= runner.scheduler.max_sequence_tokens();
                let room = runner.scheduler.load().waiting < config.max_waiting;
                match runner
                    .scheduler
                    .submit(new)
                    .map_err(|rejected| rejected.reason)
                {
                    Ok(()) => {
                        assert!(fits && room && !prompt.is_empty());
                        let tokens = answer[n_emitted..].to_vec();
                        expected.push(Expected {
                            id,
                            tokens,
                            aborted: false,
                        });
                    }
                    Err(Rejection::EmptyPrompt) => assert!(prompt.is_empty()),
                    Err(Rejection::QueueFull { .. }) => assert!(!room && fits),
                    Err(_) => assert!(!fits),
                }
            }
            Op::Abort { which } => abort(&mut runner, &mut expected, which),
            Op::Step => {
                runner.step();
            }
            Op::StepAndAbort { which } => {
                let (batch, sampled) = runner.compute();
                abort(&mut runner, &mut expected, which);
                runner.complete(batch, &sampled);
            }
            Op::LoseStep => runner.lose_step(),
            Op::Take { n } => {
                taken.extend(
                    runner
                        .scheduler
                        .pool()
                        .allocate(CacheGroup(0), n)
                        .unwrap_or_default(),
                );
            }
            Op::GiveBack => taken.clear(),
            Op::ClearCache => runner.scheduler.pool().clear(),
        }
        let load = runner.scheduler.load();
        let unfinished = expected.iter().filter(|e| {
            let finish = runner.answers.get(&SequenceId(e.id)).and_then(|(_, f)| *f);
            !e.aborted && finish.is_none()
        });
        assert_eq!(load.running + load.waiting, unfinished.count());
    }
    drop(taken);
    runner.run();
    for e in &expected {
        let answer = runner.answers.get(&SequenceId(e.id));
        let tokens = answer.map_or(&[][..], |(tokens, _)| tokens);
        if e.aborted {
            assert!(e.tokens.starts_with(tokens), "{}: {tokens:?}", e.id);
        } else {
            assert_eq!(tokens, e.tokens, "{}", e.id);
        }
    }
    runner
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_gets_its_tokens((config, n_blocks) in config(), ops in vec(op(), 1..60)) {
        let first = run(&config, n_blocks, &ops);
        let second = run(&config, n_blocks, &ops);
        prop_assert_eq!(first.trace, second.trace, "the same calls give the same batches");
    }
}
