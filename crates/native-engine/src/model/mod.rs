//! A llama model in memory.

mod load;
mod metadata;
mod shape;

use forebay_tokens::BlockSize;

use crate::kernel::{ARITHMETIC_VERSION, PackedMatrix, Rope};
use crate::kv_memory::{KvDtype, KvLayout};

pub use metadata::{GgufMetadata, TokenizerMetadata};
pub use shape::ModelShape;

/// A llama model: its weights as 8-bit blocks, and what its file says about it.
///
/// Immutable and shareable between threads; a [`Runner`](crate::Runner) computes with it.
pub struct Model {
    pub(crate) shape: ModelShape,
    pub(crate) epsilon: f32,
    pub(crate) rope: Rope,
    pub(crate) embedding: PackedMatrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// `None` if the embedding is the output matrix as well.
    output: Option<PackedMatrix>,
    metadata: GgufMetadata,
    digest: [u8; 32],
}

/// One transformer layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    /// Rows of the queries, the keys, the values.
    pub(crate) query_key_value: PackedMatrix,
    pub(crate) attention_output: PackedMatrix,
    pub(crate) feed_forward_norm: Vec<f32>,
    /// Rows of the gates, then as many of what they gate.
    pub(crate) gate_up: PackedMatrix,
    pub(crate) down: PackedMatrix,
}

impl Model {
    /// Its dimensions.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// What its file says besides weights: name, licence, tokenizer, chat template.
    pub fn metadata(&self) -> &GgufMetadata {
        &self.metadata
    }

    /// The layout of its KV blocks of `block_size` tokens.
    pub fn kv_layout(&self, block_size: BlockSize) -> KvLayout {
        KvLayout {
            layers: self.shape.layers,
            kv_heads: self.shape.kv_heads,
            head_dim: self.shape.head_dim,
            block_size,
            dtype: KvDtype::F32,
        }
    }

    /// A digest of everything that the bytes of a KV block depend on besides tokens: weights,
    /// layout, and the version of this engine's arithmetic.
    ///
    /// Two engines may exchange KV blocks if and only if their fingerprints are equal; it belongs
    /// into the [`ContentNamespace`](forebay_tokens::ContentNamespace) of those blocks.
    pub fn kv_fingerprint(&self, layout: &KvLayout) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"forebay native kv 1");
        hasher.update(&ARITHMETIC_VERSION.to_le_bytes());
        hasher.update(&self.digest);
        for number in [
            layout.layers,
            layout.kv_heads,
            layout.head_dim,
            layout.block_size.get(),
            layout.dtype.bytes(),
        ] {
            hasher.update(&(number as u64).to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Bytes of weights that one decoded token reads: the least that a step can move from memory.
    pub fn bytes_per_token(&self) -> usize {
        let layers = self.layers.iter().map(|layer| {
            layer.query_key_value.bytes()
                + layer.attention_output.bytes()
                + layer.gate_up.bytes()
                + layer.down.bytes()
        });
        layers.sum::<usize>() + self.output().bytes()
    }

    /// The matrix that turns the last hidden state into logits.
    pub(crate) fn output(&self) -> &PackedMatrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.metadata.name)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}
