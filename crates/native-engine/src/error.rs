//! What loading, memory and steps can fail with.

use std::path::PathBuf;

use forebay_tokens::{BlockId, TokenId, ZeroBlockSize};

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the model file")]
    Read(#[from] std::io::Error),
    /// The bytes are not a well-formed GGUF file, or use a tensor type that is not known.
    #[error("not a readable GGUF file: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: String,
    },
    /// The model is not of the llama family.
    #[error("architecture {0:?} is not supported, only \"llama\" is")]
    Architecture(String),
    /// A metadata key that the model needs is absent.
    #[error("metadata key {0:?} is missing")]
    MissingKey(String),
    /// A metadata value has the wrong type or is out of range.
    #[error("metadata key {key:?} {problem}")]
    BadKey {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A tensor that the model needs is absent.
    #[error("tensor {0:?} is missing")]
    MissingTensor(String),
    /// A tensor has another shape than the metadata says.
    #[error("tensor {tensor:?} has shape {got:?}, expected {expected:?}")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// Rows and columns (or fewer or more dimensions) in the file.
        got: Vec<usize>,
        /// What the metadata implies.
        expected: Vec<usize>,
    },
    /// A tensor's bytes lie outside of the file, as in a download that was cut off.
    #[error("tensor {tensor:?} ends at byte {end}, but the file has {file_bytes}")]
    Truncated {
        /// The tensor.
        tensor: String,
        /// Where its data would end.
        end: u64,
        /// Length of the file.
        file_bytes: u64,
    },
    /// A tensor holds a NaN, an infinity, or a weight too large for 8-bit blocks.
    #[error("tensor {0:?} holds a weight that is not finite")]
    NotFinite(String),
    /// The model has a tensor that would be ignored, such as a bias: its answers would be wrong.
    #[error("tensor {0:?} is not part of a llama model that this engine can run")]
    UnsupportedTensor(String),
}

/// Why KV memory refused an operation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The arena cannot be reserved.
    #[error("cannot reserve {blocks} KV blocks of {bytes_per_block} bytes")]
    OutOfMemory {
        /// Blocks asked for.
        blocks: usize,
        /// Bytes of each.
        bytes_per_block: usize,
    },
    /// There is no block with this id.
    #[error("block {block} does not exist: there are {blocks}")]
    NoSuchBlock {
        /// The block asked for.
        block: BlockId,
        /// Number of blocks.
        blocks: usize,
    },
    /// The bytes are not one block of this layout.
    #[error("{got} bytes are not a KV block of {expected} bytes")]
    WrongLength {
        /// Bytes given.
        got: usize,
        /// Bytes of a block.
        expected: usize,
    },
}

/// Why a runner could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// The KV memory was made for a model of another shape.
    #[error("the KV memory's layout is not the model's")]
    Layout,
    /// The system refused to start a thread.
    #[error("cannot start a compute thread")]
    Thread(#[from] std::io::Error),
}

/// Why a step was refused. Nothing was computed and no block changed.
///
/// `sequence` is the index in the step's work list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// A sequence brings no tokens.
    #[error("sequence {sequence} has no tokens")]
    Empty {
        /// Which sequence.
        sequence: usize,
    },
    /// A token is not in the vocabulary.
    #[error("sequence {sequence}: token {token} is not in the vocabulary of {vocabulary}")]
    Token {
        /// Which sequence.
        sequence: usize,
        /// The token.
        token: TokenId,
        /// Tokens in the vocabulary.
        vocabulary: usize,
    },
    /// The tokens reach beyond the model's context.
    #[error("sequence {sequence} would have {tokens} tokens, but the context length is {context}")]
    Context {
        /// Which sequence.
        sequence: usize,
        /// Length of the sequence after the step.
        tokens: usize,
        /// The model's context length.
        context: usize,
    },
    /// The block table does not cover the tokens.
    #[error("sequence {sequence} has {got} blocks and needs {needed}")]
    BlockTable {
        /// Which sequence.
        sequence: usize,
        /// Blocks in its table.
        got: usize,
        /// Blocks that its tokens need.
        needed: usize,
    },
    /// A block does not exist.
    #[error("sequence {sequence} names block {block}, but there are {blocks}")]
    NoSuchBlock {
        /// Which sequence.
        sequence: usize,
        /// The block.
        block: BlockId,
        /// Number of blocks.
        blocks: usize,
    },
    /// Two places of the step would write the same block.
    #[error("sequence {sequence} would write block {block}, which is written already")]
    SharedWrite {
        /// The later of the two sequences.
        sequence: usize,
        /// The block.
        block: BlockId,
    },
}

/// Why an engine could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The model cannot be loaded.
    #[error("the model cannot be loaded")]
    Load(#[from] LoadError),
    /// The setting `block_size_tokens` is 0.
    #[error("block_size_tokens is wrong")]
    BlockSize(#[from] ZeroBlockSize),
    /// The setting `kv_cache_bytes` is less than one block of this model, or more blocks than can
    /// be numbered.
    #[error("kv_cache_bytes = {bytes} makes no number of KV blocks of {bytes_per_block} bytes")]
    KvCacheBytes {
        /// The setting.
        bytes: u64,
        /// Bytes of one block of this model at this block size.
        bytes_per_block: usize,
    },
    /// The KV memory cannot be had.
    #[error("the KV memory cannot be had")]
    Memory(#[from] KvError),
    /// The runner cannot be made.
    #[error("the runner cannot be made")]
    Runner(#[from] RunnerError),
    /// The scheduler's settings let nothing run.
    #[error("the scheduler's settings are wrong")]
    Scheduler(#[from] forebay_batch_scheduler::ConfigError),
    /// The system gives no random bytes for a content key.
    #[error("no random content key can be drawn")]
    ContentKey(#[from] getrandom::Error),
    /// The engine's thread cannot be started.
    #[error("the engine's thread cannot be started")]
    Thread(#[source] std::io::Error),
}
