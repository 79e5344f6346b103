//! Hot paths of the engine: one step of a small model with the portable kernel, which is the same
//! on every machine.

use std::io::Cursor;
use std::num::NonZeroUsize;
use std::sync::Arc;

use forebay_native_engine::{
    Kernel, KvMemory, Logits, LogitsWanted, Model, ModelShape, Runner, RunnerOptions, SequenceStep,
    random_gguf,
};
use forebay_testkit::instructions::{self, measured};
use forebay_tokens::{BlockId, BlockSize, TokenId};

const BLOCKS: usize = 8;

fn runner() -> Runner {
    let shape = ModelShape {
        vocabulary: 512,
        context_length: 128,
        layers: 2,
        hidden: 192,
        feed_forward: 512,
        heads: 3,
        kv_heads: 1,
        head_dim: 64,
    };
    let model = Model::from_gguf(Cursor::new(random_gguf(&shape, 7))).expect("it is a model");
    let size = BlockSize::new(16).expect("16 is a block size");
    let memory = KvMemory::new(model.kv_layout(size), BLOCKS).expect("8 blocks fit");
    let options = RunnerOptions {
        threads: NonZeroUsize::MIN,
        kernel: Kernel::available()[0],
    };
    Runner::new(Arc::new(model), memory, options).expect("the layouts are equal")
}

fn step(runner: &mut Runner, tokens: &[TokenId], start: usize) {
    let blocks: Vec<_> = (0..BLOCKS as u32).map(BlockId).collect();
    let work = SequenceStep {
        tokens,
        start,
        blocks: &blocks,
        logits: LogitsWanted::Last,
    };
    let mut logits = Logits::default();
    runner.step(&[work], &mut logits).expect("it fits");
}

fn prefill() {
    let mut runner = runner();
    let prompt: Vec<_> = (0..64).collect();
    measured(|| step(&mut runner, &prompt, 0));
}

fn decode() {
    let mut runner = runner();
    let prompt: Vec<_> = (0..64).collect();
    step(&mut runner, &prompt, 0);
    measured(|| step(&mut runner, &[42], 64));
}

fn main() {
    instructions::main(&[("prefill_64", prefill), ("decode_1", decode)]);
}
