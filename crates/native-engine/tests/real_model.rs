//! The real model: the right answer, and the same bits in every way to get it.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, LazyLock};

use forebay_native_engine::{Kernel, Logits, LogitsWanted, Model, Runner, SequenceStep};
use forebay_tokens::{BlockId, TokenId};
use support::*;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(real_model);

/// "What is the capital of France?" in the model's chat template, with its default system
/// message.
const QUESTION: [TokenId; 37] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407,
    19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531,
    198,
];

/// Greedy answer to a sequence whose last token is not computed yet, with the bits of each row.
fn answer(
    runner: &mut Runner,
    mut tokens: Vec<TokenId>,
    table: &[BlockId],
) -> (Vec<TokenId>, Vec<Vec<u32>>) {
    let (mut answer, mut rows) = (Vec::new(), Vec::new());
    let mut start = tokens.len() - 1;
    while answer.len() < 24 {
        let step = SequenceStep {
            tokens: &tokens[start..],
            start,
            blocks: table,
            logits: LogitsWanted::Last,
        };
        let mut logits = Logits::default();
        runner.step(&[step], &mut logits).unwrap();
        let row = logits.last(0).unwrap();
        let token = greedy(row);
        rows.push(bits(row));
        if Some(token) == runner.model().metadata().tokenizer.eos {
            break;
        }
        answer.push(token);
        start = tokens.len();
        tokens.push(token);
    }
    (answer, rows)
}

#[test]
fn the_capital_of_france_is_paris_in_every_way_to_compute_it() {
    let mut runner = fast(&MODEL);
    let table = blocks(0..4);
    let prompt = all_bits(&mut runner, &QUESTION, 0, &table);
    let (expected, rows) = answer(&mut runner, QUESTION.to_vec(), &table);
    let vocabulary = &MODEL.metadata().tokenizer.tokens;
    let text: String = expected
        .iter()
        .map(|id| vocabulary[*id as usize].as_str())
        .collect();
    assert!(text.contains("Paris"), "{text}");

    // Every kernel, another number of threads, chunks of seven, other blocks.
    for kernel in Kernel::available() {
        let mut runner = support::runner(&MODEL, 16, kernel, 3);
        let table = blocks([60, 11, 3, 40]);
        let chunked: Vec<_> = (0..QUESTION.len())
            .step_by(7)
            .flat_map(|start| {
                let end = QUESTION.len().min(start + 7);
                all_bits(&mut runner, &QUESTION[start..end], start, &table)
            })
            .collect();
        assert!(chunked == prompt, "{kernel}");
    }

    // On 32 exported tokens, in another memory.
    let mut moved = fast(&MODEL);
    let other = blocks([50, 7, 2, 30]);
    for (from, to) in table.iter().zip(&other[..2]) {
        let bytes = runner.memory().export(*from).unwrap();
        moved.memory_mut().import(*to, &bytes).unwrap();
    }
    assert!(all_bits(&mut moved, &QUESTION[32..], 32, &other) == prompt[32..]);
    assert!(answer(&mut moved, QUESTION.to_vec(), &other) == (expected.clone(), rows.clone()));

    // Decoding beside a long prompt and a second decode.
    let (long, second) = (tokens(200, 1), blocks([90]));
    let long_table = blocks(70..83);
    let mut sequence = QUESTION.to_vec();
    for (position, row) in (QUESTION.len() - 1..).zip(&rows) {
        let step = |tokens, start, blocks| SequenceStep {
            tokens,
            start,
            blocks,
            logits: LogitsWanted::Last,
        };
        let work = [
            step(&long, 0, &long_table),
            step(&sequence[position..], position, &other),
            step(&long[..1], 0, &second),
        ];
        let mut logits = Logits::default();
        moved.step(&work, &mut logits).unwrap();
        assert!(bits(logits.last(1).unwrap()) == *row, "position {position}");
        sequence.push(greedy(logits.last(1).unwrap()));
    }
}

#[test]
fn its_metadata_is_all_there() {
    let shape = MODEL.shape();
    assert_eq!(
        (shape.layers, shape.heads, shape.kv_heads, shape.head_dim),
        (30, 9, 3, 64)
    );
    assert_eq!((shape.vocabulary, shape.context_length), (49_152, 8_192));
    let metadata = MODEL.metadata();
    assert_eq!(metadata.license.as_deref(), Some("apache-2.0"));
    let tokenizer = &metadata.tokenizer;
    assert_eq!(
        (tokenizer.model.as_str(), tokenizer.pre.as_deref()),
        ("gpt2", Some("smollm"))
    );
    assert_eq!(
        (tokenizer.tokens.len(), tokenizer.merges.len()),
        (49_152, 48_900)
    );
    assert_eq!(tokenizer.tokens[2], "<|im_end|>");
    assert_eq!(tokenizer.token_types[..3], [3, 3, 3]);
    assert_eq!(
        (tokenizer.bos, tokenizer.eos, tokenizer.unknown),
        (Some(1), Some(2), Some(0))
    );
    assert_eq!(tokenizer.add_bos, Some(false));
    assert!(
        tokenizer
            .chat_template
            .as_deref()
            .unwrap()
            .contains("<|im_start|>")
    );
}
