//! For tests.

use forebay_engine::{Capabilities, EngineInfo};
use forebay_tokens::BlockSize;

/// An engine that has no more than it must.
pub(crate) fn engine_info(model: &str) -> EngineInfo {
    EngineInfo {
        model: model.into(),
        capabilities: Capabilities::GENERATE,
        context_length: 64,
        vocabulary_size: 256,
        block_size: BlockSize::new(16).expect("a size"),
        kv_blocks: 8,
        eos_token_ids: Vec::new(),
        data_parallel_ranks: 1,
    }
}
