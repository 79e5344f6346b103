//! Invalid work and blocks are refused by name, and change nothing.

#![allow(clippy::unwrap_used)]

mod support;

use forebay_native_engine::{
    KvError, KvMemory, Logits, LogitsWanted, Model, Runner, RunnerError, RunnerOptions,
    SequenceStep, StepError, random_gguf,
};
use forebay_tokens::{BlockId, BlockSize, TokenId};
use support::*;

fn step<'a>(tokens: &'a [TokenId], start: usize, blocks: &'a [BlockId]) -> SequenceStep<'a> {
    SequenceStep {
        tokens,
        start,
        blocks,
        logits: LogitsWanted::Last,
    }
}

#[test]
fn invalid_work_is_refused_by_name() {
    let model = random_model();
    let mut runner = fast(&model);
    let table = blocks(0..17);
    let prompt = tokens(20, 1);
    let expected = all_bits(&mut runner, &prompt, 0, &table);
    let long = tokens(257, 2);
    let good = step(&prompt[..4], 32, &table);
    let mut refused = |bad: SequenceStep<'_>| {
        runner
            .step(&[good, bad], &mut Logits::default())
            .unwrap_err()
    };

    let other = blocks(20..40);
    let sequence = 1;
    assert_eq!(refused(step(&[], 0, &other)), StepError::Empty { sequence });
    assert_eq!(
        refused(step(&[1, 301], 0, &other)),
        StepError::Token {
            sequence,
            token: 301,
            vocabulary: 301
        }
    );
    assert_eq!(
        refused(step(&long, 0, &other)),
        StepError::Context {
            sequence,
            tokens: 257,
            context: 256
        }
    );
    assert_eq!(
        refused(step(&[1], usize::MAX, &other)),
        StepError::Context {
            sequence,
            tokens: usize::MAX,
            context: 256
        }
    );
    assert_eq!(
        refused(step(&prompt, 13, &other[..2])),
        StepError::BlockTable {
            sequence,
            got: 2,
            needed: 3
        }
    );
    assert_eq!(
        refused(step(&prompt, 0, &blocks([50, 96]))),
        StepError::NoSuchBlock {
            sequence,
            block: BlockId(96),
            blocks: 96
        }
    );
    assert_eq!(
        refused(step(&prompt, 0, &blocks([2, 50]))),
        StepError::SharedWrite {
            sequence,
            block: BlockId(2)
        }
    );
    assert_eq!(
        refused(step(&prompt, 0, &blocks([50, 50]))),
        StepError::SharedWrite {
            sequence,
            block: BlockId(50)
        }
    );
    // The good sequence beside them has not run: its slots are as they were.
    assert_eq!(all_bits(&mut runner, &prompt, 0, &table), expected);
    runner.step(&[], &mut Logits::default()).unwrap();
}

#[test]
fn a_sequence_may_fill_the_whole_context() {
    let model = random_model();
    let mut runner = fast(&model);
    let rows = all_bits(&mut runner, &tokens(256, 3), 0, &blocks(0..16));
    assert_eq!(rows.len(), 256);
}

#[test]
fn blocks_of_another_layout_are_refused() {
    let model = random_model();
    let layout = model.kv_layout(BlockSize::new(16).unwrap());
    assert_eq!(layout.bytes_per_block(), 3 * 2 * 16 * 64 * 4);
    let mut memory = KvMemory::new(layout, 4).unwrap();
    let bytes = memory.export(BlockId(3)).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(
        memory.import(BlockId(0), &bytes[1..]),
        Err(KvError::WrongLength {
            got: bytes.len() - 1,
            expected: bytes.len()
        })
    );
    let missing = KvError::NoSuchBlock {
        block: BlockId(4),
        blocks: 4,
    };
    assert_eq!(memory.import(BlockId(4), &bytes), Err(missing));
    assert!(memory.export(BlockId(4)).is_err());
    let ramp: Vec<u8> = (0..bytes.len()).map(|i| i as u8).collect();
    memory.import(BlockId(2), &ramp).unwrap();
    assert_eq!(memory.export(BlockId(2)).unwrap(), ramp);
    assert_eq!(memory.export(BlockId(1)).unwrap(), bytes);
    assert_eq!(memory.export(BlockId(3)).unwrap(), bytes);
}

#[test]
fn memory_beyond_all_bounds_is_refused() {
    let layout = random_model().kv_layout(BlockSize::new(16).unwrap());
    for blocks in [u32::MAX as usize, usize::MAX / 2, usize::MAX] {
        assert!(matches!(
            KvMemory::new(layout, blocks),
            Err(KvError::OutOfMemory { .. })
        ));
    }
}

#[test]
fn a_runner_needs_the_memory_of_its_model() {
    let model = random_model();
    let mut layout = model.kv_layout(BlockSize::new(16).unwrap());
    layout.layers += 1;
    let memory = KvMemory::new(layout, 1).unwrap();
    let refused = Runner::new(model, memory, RunnerOptions::default());
    assert!(matches!(refused, Err(RunnerError::Layout)));
}

#[test]
fn fingerprints_tell_weights_and_layouts_apart() {
    let load = |seed| {
        let file = random_gguf(&SHAPE, seed);
        Model::from_gguf(std::io::Cursor::new(file)).unwrap()
    };
    let layout = |model: &Model, tokens| model.kv_layout(BlockSize::new(tokens).unwrap());
    let (one, same, other) = (load(1), load(1), load(2));
    let fingerprint = one.kv_fingerprint(&layout(&one, 16));
    assert_eq!(fingerprint, same.kv_fingerprint(&layout(&same, 16)));
    assert_ne!(fingerprint, other.kv_fingerprint(&layout(&other, 16)));
    assert_ne!(fingerprint, one.kv_fingerprint(&layout(&one, 32)));
}
