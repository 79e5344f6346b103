//! What the tests of the runner share.

#![allow(dead_code)] // each test binary uses a part

use std::io::Cursor;
use std::num::NonZeroUsize;
use std::sync::Arc;

use forebay_native_engine::{
    Kernel, KvMemory, Logits, LogitsWanted, Model, ModelShape, Runner, RunnerOptions, SequenceStep,
    random_gguf,
};
use forebay_tokens::{BlockId, BlockSize, TokenId};

/// Blocks that every runner of these tests has.
pub(crate) const BLOCKS: u32 = 96;

/// A model with odd corners: rows that are no multiple of 16, three query heads to a KV head.
pub(crate) const SHAPE: ModelShape = ModelShape {
    vocabulary: 301,
    context_length: 256,
    layers: 3,
    hidden: 96,
    feed_forward: 160,
    heads: 6,
    kv_heads: 2,
    head_dim: 32,
};

pub(crate) fn random_model() -> Arc<Model> {
    let file = random_gguf(&SHAPE, 1);
    Arc::new(Model::from_gguf(Cursor::new(file)).unwrap())
}

/// The model that `cargo xtask test` provides.
pub(crate) fn real_model() -> Arc<Model> {
    let path = std::env::var_os("FOREBAY_TEST_MODEL").expect(
        "FOREBAY_TEST_MODEL must be the path of SmolLM2-135M-Instruct.Q4_1.gguf; \
         `cargo xtask test` fetches it and sets this",
    );
    Arc::new(Model::load(path.as_ref()).unwrap())
}

pub(crate) fn runner(
    model: &Arc<Model>,
    block_tokens: u32,
    kernel: Kernel,
    threads: usize,
) -> Runner {
    let layout = model.kv_layout(BlockSize::new(block_tokens).unwrap());
    let memory = KvMemory::new(layout, BLOCKS as usize).unwrap();
    let threads = NonZeroUsize::new(threads).unwrap();
    Runner::new(Arc::clone(model), memory, RunnerOptions { threads, kernel }).unwrap()
}

pub(crate) fn fast(model: &Arc<Model>) -> Runner {
    runner(model, 16, Kernel::best(), 2)
}

/// `count` tokens of a sequence that `seed` names.
pub(crate) fn tokens(count: usize, seed: u32) -> Vec<TokenId> {
    (0..count as u32)
        .map(|i| (i * 7_919 + seed * 104_729 + i / 7) % 300)
        .collect()
}

pub(crate) fn blocks(ids: impl IntoIterator<Item = u32>) -> Vec<BlockId> {
    ids.into_iter().map(BlockId).collect()
}

/// Logits of all of `tokens`, which begin at `start`, as bits.
pub(crate) fn all_bits(
    runner: &mut Runner,
    tokens: &[TokenId],
    start: usize,
    blocks: &[BlockId],
) -> Vec<Vec<u32>> {
    let step = SequenceStep {
        tokens,
        start,
        blocks,
        logits: LogitsWanted::All,
    };
    let mut logits = Logits::default();
    runner.step(&[step], &mut logits).unwrap();
    logits.rows(0).map(bits).collect()
}

pub(crate) fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|logit| logit.to_bits()).collect()
}

/// The first token of the greatest logit.
pub(crate) fn greedy(row: &[f32]) -> TokenId {
    let best = row
        .iter()
        .enumerate()
        .rev()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .unwrap();
    best.0 as TokenId
}
