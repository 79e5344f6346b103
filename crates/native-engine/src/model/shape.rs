//! The dimensions of a llama model.

/// The dimensions that fix a llama model's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Tokens in the vocabulary: rows of the embedding, and of a row of logits.
    pub vocabulary: usize,
    /// The most tokens that a sequence may have.
    pub context_length: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream; a multiple of 32.
    pub hidden: usize,
    /// Width of the feed-forward part; a multiple of 32.
    pub feed_forward: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimensions of a head; a multiple of 16, at most 256. `heads * head_dim` is a multiple of
    /// 32.
    pub head_dim: usize,
}

impl ModelShape {
    /// Columns of all query heads.
    pub(crate) fn query_columns(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all key heads, and as many of all value heads.
    pub(crate) fn kv_columns(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
