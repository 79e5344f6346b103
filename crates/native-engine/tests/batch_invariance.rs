//! The same bits, however a sequence is computed.

#![allow(clippy::unwrap_used)]

mod support;

use forebay_native_engine::{Kernel, Logits, LogitsWanted, Model, SequenceStep};
use forebay_tokens::{BlockId, TokenId};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};
use support::*;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(random_model);

/// The definition: alone, in one chunk, in blocks in order, one thread, portable code.
fn reference(tokens: &[TokenId]) -> Vec<Vec<u32>> {
    let mut runner = runner(&MODEL, 16, Kernel::available()[0], 1);
    all_bits(&mut runner, tokens, 0, &blocks(0..16))
}

#[test]
fn any_kernel_any_threads_any_block_size() {
    let prompt = tokens(77, 1);
    let expected = reference(&prompt);
    assert_ne!(expected[75], expected[76], "the model tells tokens apart");
    for kernel in Kernel::available() {
        for (threads, block_tokens) in [(1, 16), (2, 16), (5, 32), (2, 1), (2, 7)] {
            let mut runner = runner(&MODEL, block_tokens, kernel, threads);
            let got = all_bits(&mut runner, &prompt, 0, &blocks(0..BLOCKS));
            assert!(
                got == expected,
                "{kernel}, {threads} threads, blocks of {block_tokens}"
            );
        }
    }
}

#[test]
fn one_shot_or_chunks_of_any_size() {
    let prompt = tokens(77, 2);
    let expected = reference(&prompt);
    let table = blocks(0..5);
    for chunk in [1, 2, 7, 16, 33, 76] {
        let mut runner = fast(&MODEL);
        let got: Vec<_> = (0..prompt.len())
            .step_by(chunk)
            .flat_map(|start| {
                let end = prompt.len().min(start + chunk);
                all_bits(&mut runner, &prompt[start..end], start, &table)
            })
            .collect();
        assert!(got == expected, "chunks of {chunk}");
    }
}

#[test]
fn on_the_cached_prefix_of_another_sequence() {
    let prefix = tokens(64, 3);
    let (mut first, mut second) = (prefix.clone(), prefix);
    first.extend(tokens(9, 4));
    second.extend(tokens(21, 5));
    let mut runner = fast(&MODEL);
    all_bits(&mut runner, &first, 0, &blocks([3, 90, 7, 41, 0]));
    let got = all_bits(
        &mut runner,
        &second[64..],
        64,
        &blocks([3, 90, 7, 41, 55, 56]),
    );
    assert!(got == reference(&second)[64..]);
}

#[test]
fn what_unwritten_slots_hold_does_not_matter() {
    let prompt = tokens(37, 6);
    let mut runner = fast(&MODEL);
    let bytes = runner.memory().layout().bytes_per_block();
    let nans = [0xff; 4].repeat(bytes / 4);
    for block in 0..BLOCKS {
        runner.memory_mut().import(BlockId(block), &nans).unwrap();
    }
    let got = all_bits(&mut runner, &prompt, 0, &blocks([9, 4, 70]));
    assert!(got == reference(&prompt));
}

#[test]
fn after_export_and_import_into_another_memory() {
    let prompt = tokens(90, 7);
    let mut from = fast(&MODEL);
    all_bits(&mut from, &prompt[..80], 0, &blocks([5, 6, 7, 8, 9]));
    let mut to = fast(&MODEL);
    let table = blocks([80, 2, 64, 33, 1, 50]);
    for (source, target) in (5..10).zip(&table) {
        let bytes = from.memory().export(BlockId(source)).unwrap();
        assert_eq!(bytes.len(), to.memory().layout().bytes_per_block());
        to.memory_mut().import(*target, &bytes).unwrap();
    }
    let got = all_bits(&mut to, &prompt[80..], 80, &table);
    assert!(got == reference(&prompt)[80..]);
}

#[test]
fn only_the_wanted_rows_are_returned() {
    let prompt = tokens(20, 8);
    let expected = reference(&prompt);
    let (a, b, c) = (blocks([0, 1]), blocks([2, 3]), blocks([4, 5]));
    let step = |blocks, logits| SequenceStep {
        tokens: &prompt,
        start: 0,
        blocks,
        logits,
    };
    let work = [
        step(&a, LogitsWanted::Last),
        step(&b, LogitsWanted::None),
        step(&c, LogitsWanted::All),
    ];
    let mut logits = Logits::default();
    fast(&MODEL).step(&work, &mut logits).unwrap();
    assert_eq!(logits.rows(0).map(bits).collect::<Vec<_>>(), expected[19..]);
    assert_eq!(logits.rows(1).len(), 0);
    assert!(logits.last(1).is_none() && logits.last_mut(1).is_none());
    assert_eq!(logits.rows(2).map(bits).collect::<Vec<_>>(), expected);
    assert_eq!(bits(logits.last_mut(2).unwrap()), expected[19]);
}

/// How far each of some sequences goes in each of some steps.
fn schedules() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let chunk = prop_oneof![3 => Just(0), 4 => Just(1), 3 => 2..40usize];
    prop::collection::vec(prop::collection::vec(chunk, 4), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Sequences that prefill and decode side by side in any pattern get what each gets alone.
    #[test]
    fn in_any_company(
        schedule in schedules(),
        lengths in prop::collection::vec(1..90usize, 4),
        kernel in prop::sample::select(Kernel::available()),
        threads in 1..4usize,
        placement in Just((0..24u32).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let sequences: Vec<_> =
            (100..).zip(&lengths).map(|(seed, length)| tokens(*length, seed)).collect();
        let expected: Vec<_> = sequences.iter().map(|tokens| reference(tokens)).collect();
        let tables: Vec<_> =
            placement.chunks(6).map(|ids| blocks(ids.iter().copied())).collect();
        let mut runner = runner(&MODEL, 16, kernel, threads);
        let mut done = [0; 4];
        for chunks in &schedule {
            let ends: Vec<_> =
                (0..4).map(|i| lengths[i].min(done[i] + chunks[i])).collect();
            let active: Vec<_> = (0..4).filter(|&i| ends[i] > done[i]).collect();
            let work: Vec<_> = active
                .iter()
                .map(|&i| SequenceStep {
                    tokens: &sequences[i][done[i]..ends[i]],
                    start: done[i],
                    blocks: &tables[i],
                    logits: LogitsWanted::All,
                })
                .collect();
            let mut logits = Logits::default();
            runner.step(&work, &mut logits).unwrap();
            for (place, &i) in active.iter().enumerate() {
                let got: Vec<_> = logits.rows(place).map(bits).collect();
                prop_assert!(got == expected[i][done[i]..ends[i]], "sequence {}", i);
            }
            done.copy_from_slice(&ends);
        }
    }
}
