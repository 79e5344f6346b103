//! The rules that `Scheduler` states, one by one.

use std::ops::Range;

use forebay_batch_scheduler::{
    ConfigError, Finish, NewSequence, Priority, Rejection, Sampled, Scheduler, SchedulerConfig,
    SequenceId,
};
use forebay_kv_block_manager::{BlockPool, GroupConfig, GroupSpec, PoolConfig};
use forebay_tokens::{
    BlockChain, BlockSize, CacheGroup, ContentKey, ContentNamespace, RoutingSeed, Tier, TokenId,
};

use crate::fake_runner::{BLOCK_SIZE, FakeRunner, config, reference, sequence};

fn prompt(seed: u32, len: usize) -> Vec<TokenId> {
    (0..len as u32).map(|i| 1000 * seed + i).collect()
}

/// The last batch: who computes what.
fn last(runner: &FakeRunner) -> Vec<(u64, Range<usize>)> {
    let items = runner.trace.last().unwrap();
    items.iter().map(|i| (i.id.0, i.tokens.clone())).collect()
}

#[test]
fn long_prefills_go_in_chunks_beside_decodes() {
    let config = SchedulerConfig {
        max_batch_tokens: 10,
        max_chunk_tokens: 8,
        ..config()
    };
    let mut runner = FakeRunner::new(config, 64);
    runner.submit(1, &prompt(1, 3), 20);
    runner.step();
    runner.submit(2, &prompt(2, 20), 4);
    runner.submit(3, &prompt(3, 5), 4);

    runner.step();
    assert_eq!(last(&runner), [(1, 3..4), (2, 0..8), (3, 0..1)]);
    runner.step();
    assert_eq!(last(&runner), [(1, 4..5), (2, 8..16), (3, 1..2)]);
    let progress = runner.step();
    assert_eq!(last(&runner), [(1, 5..6), (2, 16..20), (3, 2..5)]);
    assert!(progress.iter().all(|p| p.token.is_some()));
    runner.step();
    assert_eq!(last(&runner), [(1, 6..7), (2, 20..21), (3, 5..6)]);

    runner.run();
    assert_eq!(runner.answer(2), reference(&prompt(2, 20), 4));
}

#[test]
fn a_cached_prefix_is_not_computed_again() {
    let mut runner = FakeRunner::new(config(), 64);
    runner.submit(1, &prompt(1, 10), 1);
    runner.run();
    runner.submit(2, &prompt(1, 10), 1);
    runner.step();
    assert_eq!(last(&runner), [(2, 8..10)]);
    assert_eq!(runner.trace[1][0].cached_tokens, 8);

    // A prompt of whole blocks: the last one is computed again, for the logits of its last token.
    runner.submit(3, &prompt(1, 8), 1);
    runner.step();
    assert_eq!(last(&runner), [(3, 4..8)]);
    assert_eq!(runner.answer(3), reference(&prompt(1, 8), 1));
    // And the copy of what is known already is not kept.
    assert_eq!(runner.scheduler.load().cached_blocks, 2);
}

#[test]
fn a_follow_up_turn_finds_the_generated_blocks() {
    let mut runner = FakeRunner::new(config(), 64);
    runner.submit(1, &prompt(1, 6), 7);
    runner.run();
    let mut conversation = prompt(1, 6);
    conversation.extend(runner.answer(1));
    assert_eq!(conversation.len(), 13, "no stop token in between");
    conversation.push(4321);

    runner.submit(2, &conversation, 1);
    runner.step();
    assert_eq!(last(&runner), [(2, 12..14)]);
    assert_eq!(runner.answer(2), reference(&conversation, 1));
}

#[test]
fn equal_prompts_at_once_are_computed_once() {
    let config = SchedulerConfig {
        max_chunk_tokens: 8,
        ..config()
    };
    let mut runner = FakeRunner::new(config, 64);
    for id in 1..=4 {
        runner.submit(id, &prompt(1, 21), 2);
    }
    runner.submit(5, &prompt(5, 3), 1);
    runner.step();
    assert_eq!(last(&runner), [(1, 0..8), (5, 0..3)], "others may pass");
    runner.step();
    runner.step();
    assert_eq!(last(&runner), [(1, 16..21)]);
    runner.step();
    let tails = [(1, 21..22), (2, 20..21), (3, 20..21), (4, 20..21)];
    assert_eq!(last(&runner), tails);
    runner.run();
    assert_eq!(runner.n_computed, 21 + 3 + 3 + 4);
    for id in 1..=4 {
        assert_eq!(runner.answer(id), reference(&prompt(1, 21), 2));
    }
}

#[test]
fn who_waits_for_an_aborted_sequence_takes_over() {
    let config = SchedulerConfig {
        max_chunk_tokens: 8,
        ..config()
    };
    let mut runner = FakeRunner::new(config, 64);
    for id in 1..=3 {
        runner.submit(id, &prompt(1, 21), 2);
    }
    runner.step();
    runner.scheduler.abort(SequenceId(1));
    runner.step();
    assert_eq!(last(&runner), [(2, 8..16)]);
    runner.run();
    assert_eq!(runner.answer(3), reference(&prompt(1, 21), 2));
}

#[test]
fn the_last_loses_its_blocks_and_nothing_else() {
    // Two sequences that end with 5 blocks each, and 8 blocks.
    let mut runner = FakeRunner::new(config(), 8);
    runner.submit(1, &prompt(1, 8), 12);
    runner.submit(2, &prompt(2, 8), 12);
    let mut preempted = vec![];
    while !runner.scheduler.is_idle() {
        let (batch, sampled) = runner.compute();
        for id in batch.preempted() {
            preempted.push(*id);
            let sequence = runner.scheduler.sequence(*id).unwrap();
            assert!(sequence.block_table().is_empty());
            assert_eq!(sequence.n_computed(), 0);
            assert_eq!(sequence.emitted(), runner.answer(id.0));
        }
        runner.complete(batch, &sampled);
    }
    assert_eq!(preempted, [SequenceId(2)]);
    for id in [1, 2] {
        assert_eq!(runner.answer(id), reference(&prompt(id as u32, 8), 12));
    }
    // Coming back, it found what was left of its blocks.
    assert!(runner.n_computed < 8 + 11 + 8 + 11 + 8);
    // The first count is what its user is told.
    let items = runner.trace.iter().flatten();
    assert!(items.clone().all(|item| item.cached_tokens == 0));
    assert_eq!(runner.n_active(), 0);
}

#[test]
fn nobody_passes_the_first_that_does_not_fit() {
    let mut runner = FakeRunner::new(config(), 10);
    runner.submit(1, &prompt(1, 20), 8);
    runner.step();
    runner.submit(2, &prompt(2, 24), 2);
    runner.submit(3, &prompt(3, 2), 2);
    runner.step();
    assert_eq!(last(&runner), [(1, 20..21)]);
    assert_eq!(runner.scheduler.load().waiting, 2);
    runner.run();
    let first_of = |id| {
        let mut trace = runner.trace.iter();
        trace.position(|batch| batch.iter().any(|item| item.id == SequenceId(id)))
    };
    assert_eq!(first_of(2), first_of(3));
}

#[test]
fn admission_leaves_a_block_for_each_running_sequence() {
    let mut runner = FakeRunner::new(config(), 4);
    runner.submit(1, &prompt(1, 8), 4);
    runner.submit(2, &prompt(2, 8), 4);
    runner.step();
    assert_eq!(last(&runner), [(1, 0..8)], "2 + 2 blocks would leave none");
    runner.run();
    assert_eq!(runner.trace.len(), 8, "one after the other, nothing twice");
}

#[test]
fn the_more_urgent_goes_first() {
    let config = SchedulerConfig {
        max_batch_tokens: 4,
        max_sequences: 1,
        ..config()
    };
    let mut runner = FakeRunner::new(config, 64);
    for (id, priority) in [(1, 0), (2, 5), (3, -5), (4, 0)] {
        let mut new = sequence(id, &prompt(id as u32, 3), 1);
        new.priority = Priority(priority);
        runner.scheduler.submit(new).unwrap();
    }
    runner.run();
    let order: Vec<_> = runner.trace.iter().flatten().map(|i| i.id.0).collect();
    assert_eq!(order, [3, 1, 4, 2]);
}

#[test]
fn generation_goes_on_after_what_was_emitted() {
    let whole = reference(&prompt(1, 6), 9);
    let mut runner = FakeRunner::new(config(), 64);
    let mut new = sequence(1, &prompt(1, 6), 9);
    new.emitted = whole[..4].to_vec();
    runner.scheduler.submit(new).unwrap();
    runner.run();
    assert_eq!(runner.answer(1), &whole[4..]);
    assert_eq!(
        runner.answers[&SequenceId(1)].1,
        Some(if whole.len() == 9 {
            Finish::Length
        } else {
            Finish::Stop
        })
    );
}

#[test]
fn a_stop_ends_the_sequence() {
    let mut runner = FakeRunner::new(config(), 64);
    runner.submit(1, &prompt(1, 6), 200);
    runner.run();
    let (tokens, finish) = &runner.answers[&SequenceId(1)];
    assert_eq!(*finish, Some(Finish::Stop));
    assert_eq!(*tokens, reference(&prompt(1, 6), 200));
}

#[test]
fn what_cannot_run_is_refused_and_handed_back() {
    let config = SchedulerConfig {
        context_length: 50,
        max_waiting: 1,
        ..config()
    };
    let mut runner = FakeRunner::new(config, 10);
    let scheduler = &mut runner.scheduler;
    assert_eq!(scheduler.max_sequence_tokens(), 41);
    let mut refuse = |new: NewSequence| {
        let given = format!("{new:?}");
        let rejected = scheduler.submit(new).unwrap_err();
        assert_eq!(format!("{:?}", rejected.sequence), given);
        rejected.reason
    };

    assert_eq!(refuse(sequence(1, &[], 1)), Rejection::EmptyPrompt);
    let reason = Rejection::ContextLength {
        tokens: 51,
        context_length: 50,
    };
    assert_eq!(refuse(sequence(1, &prompt(1, 40), 11)), reason);
    assert!(matches!(
        refuse(sequence(1, &prompt(1, 40), usize::MAX)),
        Rejection::ContextLength { .. }
    ));
    let reason = Rejection::NeverFits {
        needed_blocks: 11,
        total_blocks: 10,
    };
    assert_eq!(refuse(sequence(1, &prompt(1, 40), 2)), reason);
    let mut new = sequence(1, &prompt(1, 4), 2);
    new.emitted = vec![1, 2];
    let reason = Rejection::NothingToGenerate {
        max_new_tokens: 2,
        emitted: 2,
    };
    assert_eq!(refuse(new), reason);
    let mut new = sequence(1, &prompt(1, 4), 2);
    new.chain.push(1);
    assert_eq!(refuse(new), Rejection::Chain);

    runner.submit(1, &prompt(1, 40), 1);
    let scheduler = &mut runner.scheduler;
    let reason = scheduler.submit(sequence(1, &[1], 1)).unwrap_err().reason;
    assert_eq!(reason, Rejection::DuplicateId);
    let reason = scheduler.submit(sequence(2, &[1], 1)).unwrap_err().reason;
    assert_eq!(reason, Rejection::QueueFull { waiting: 1 });
    runner.run();
    assert_eq!(runner.answer(1).len(), 1, "what just fits runs");
}

#[test]
fn an_aborted_sequence_keeps_its_blocks_while_they_are_written_to() {
    let mut runner = FakeRunner::new(config(), 64);
    runner.submit(1, &prompt(1, 10), 5);
    runner.submit(2, &prompt(2, 3), 5);
    runner.submit(3, &prompt(3, 100), 5);
    let (batch, sampled) = runner.compute();
    let active = runner.n_active();
    assert!(runner.scheduler.abort(SequenceId(1)));
    assert!(!runner.scheduler.abort(SequenceId(1)));
    assert!(runner.scheduler.sequence(SequenceId(1)).is_none());
    assert_eq!(runner.n_active(), active);
    // Its name can be used again, at once.
    runner.submit(1, &prompt(4, 5), 2);

    let progress = runner.complete(batch, &sampled);
    let ids: Vec<_> = progress.iter().map(|p| p.id.0).collect();
    assert_eq!(ids, [2, 3]);
    assert_eq!(runner.n_active(), active - 3);

    runner.scheduler.abort(SequenceId(3));
    runner.run();
    assert_eq!(runner.answer(1), reference(&prompt(4, 5), 2));
}

#[test]
fn a_batch_that_was_not_computed_is_planned_again() {
    let mut runner = FakeRunner::new(config(), 64);
    runner.submit(1, &prompt(1, 10), 3);
    let lost = runner.scheduler.schedule();
    let again = runner.scheduler.schedule();
    assert_eq!(lost.items(), again.items());
    assert_eq!(runner.n_active(), 3);
    runner.run();
    assert_eq!(runner.answer(1), reference(&prompt(1, 10), 3));
}

#[test]
#[should_panic(expected = "only the last batch can be completed")]
fn an_old_batch_cannot_be_completed() {
    let mut runner = FakeRunner::new(config(), 64);
    runner.submit(1, &prompt(1, 3), 3);
    let old = runner.scheduler.schedule();
    let _new = runner.scheduler.schedule();
    let sampled = Sampled {
        token: 1,
        stop: false,
    };
    runner.scheduler.complete(old, &[sampled]);
}

#[test]
fn tenants_share_nothing() {
    let mut runner = FakeRunner::new(config(), 64);
    runner.submit(1, &prompt(1, 10), 1);
    runner.run();
    let mut new = sequence(2, &prompt(1, 10), 1);
    let namespace = ContentNamespace::new(&ContentKey::new([1; 32]), b"model", b"tenant");
    let block_size = BlockSize::new(BLOCK_SIZE as u32).unwrap();
    new.chain = BlockChain::new(namespace, RoutingSeed::default(), block_size);
    runner.scheduler.submit(new).unwrap();
    runner.step();
    assert_eq!(last(&runner), [(2, 0..10)]);
}

#[test]
fn prompts_that_collide_in_their_routing_hash_share_nothing() {
    let colliding: [[TokenId; 16]; 2] = [
        [
            1009, 1029, 1032, 1056, 1077, 1092, 1109, 1117, 1136, 1148, 1160, 1189, 1195, 1214,
            1236, 1252,
        ],
        [
            1002, 1028, 1038, 1050, 1064, 1091, 1098, 1120, 1135, 1155, 1160, 1185, 1206, 1217,
            1236, 1254,
        ],
    ];
    let block_size = BlockSize::new(16).unwrap();
    let pool = BlockPool::new(PoolConfig::full_attention(8, block_size)).unwrap();
    let mut scheduler = Scheduler::new(config(), pool).unwrap();
    let namespace = ContentNamespace::new(&ContentKey::new([1; 32]), b"model", b"");
    let mut routing = vec![];
    for (id, tokens) in (0..).zip(colliding) {
        let mut new = sequence(id, &tokens, 1);
        new.prompt.push(1);
        new.chain = BlockChain::new(namespace, RoutingSeed::default(), block_size);
        scheduler.submit(new).unwrap();
        let batch = scheduler.schedule();
        assert_eq!(
            batch.items()[0].tokens,
            0..17,
            "nothing is taken from the other"
        );
        let new = scheduler.sequence(SequenceId(id)).unwrap();
        routing.push(new.identities()[0].routing);
        let token = Sampled {
            token: 1,
            stop: false,
        };
        scheduler.complete(batch, &[token]);
    }
    assert_eq!(routing[0], routing[1]);
    assert_eq!(scheduler.load().cached_blocks, 2);
}

#[test]
fn the_load_says_what_there_is_to_do() {
    let config = SchedulerConfig {
        max_batch_tokens: 8,
        max_sequences: 2,
        ..config()
    };
    let mut runner = FakeRunner::new(config, 20);
    for id in 1..=3 {
        runner.submit(id, &prompt(id as u32, 6), 3);
    }
    let load = runner.scheduler.load();
    assert_eq!(
        (load.running, load.waiting, load.prefill_tokens),
        (0, 3, 18)
    );
    runner.step();
    let load = runner.scheduler.load();
    assert_eq!((load.running, load.waiting), (2, 1));
    assert_eq!(load.prefill_tokens, 4 + 6, "one decodes, one has 4 left");
    assert_eq!((load.active_blocks, load.total_blocks), (4, 20));
    assert_eq!(load.kv_usage(), 0.2);
}

#[test]
fn blocks_can_be_kept_for_longer_than_their_sequence() {
    let mut runner = FakeRunner::new(config(), 4);
    runner.submit(1, &prompt(1, 9), 2);
    runner.step();
    let sequence = runner.scheduler.sequence(SequenceId(1)).unwrap();
    assert_eq!(sequence.block_table().len(), 3);
    let names = sequence.identities().to_vec();
    let kept = sequence.registered_blocks().to_vec();
    assert_eq!(kept.iter().map(|b| b.identity()).collect::<Vec<_>>(), names);
    runner.step();
    assert!(runner.scheduler.is_idle());

    // Nobody gets them, and there is nothing to do until they are given back.
    runner.submit(2, &prompt(2, 12), 1);
    assert!(runner.scheduler.schedule().is_empty());
    assert_eq!(runner.scheduler.pool().prefix_len(CacheGroup(0), &names), 2);
    drop(kept);
    runner.run();
    assert_eq!(runner.answer(2), reference(&prompt(2, 12), 1));
}

#[test]
fn bounds_that_let_nothing_run_are_refused() {
    let block_size = BlockSize::new(4).unwrap();
    let pool = || BlockPool::new(PoolConfig::full_attention(4, block_size)).unwrap();
    let refused = |config, pool| Scheduler::new(config, pool).unwrap_err();
    let too_small = |setting, value, least| ConfigError::TooSmall {
        setting,
        value,
        least,
    };
    let config_with = |change: fn(&mut SchedulerConfig)| {
        let mut config = config();
        change(&mut config);
        config
    };
    assert_eq!(
        refused(config_with(|c| c.max_batch_tokens = 7), pool()),
        too_small("max_batch_tokens", 7, 8)
    );
    assert_eq!(
        refused(config_with(|c| c.max_chunk_tokens = 0), pool()),
        too_small("max_chunk_tokens", 0, 1)
    );

    let windowed = BlockPool::new(PoolConfig {
        tier: Tier::G1,
        groups: vec![GroupConfig {
            spec: GroupSpec::sliding_window(block_size, 8),
            n_blocks: 4,
        }],
    });
    let groups = refused(config(), windowed.unwrap());
    assert_eq!(groups, ConfigError::CacheGroups);
}
