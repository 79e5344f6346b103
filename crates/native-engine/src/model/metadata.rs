//! What a GGUF file says besides weights.

use forebay_tokens::TokenId;

/// Descriptive metadata of a GGUF file, as it stands there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufMetadata {
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`: usually an SPDX identifier.
    pub license: Option<String>,
    /// The tokenizer.
    pub tokenizer: TokenizerMetadata,
}

/// The `tokenizer.*` keys of a GGUF file, as they stand there.
///
/// Source: the [GGUF specification](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizerMetadata {
    /// `tokenizer.ggml.model`: the algorithm, such as `gpt2` for byte-level BPE or `llama` for
    /// SentencePiece. Empty if the file has no tokenizer.
    pub model: String,
    /// `tokenizer.ggml.pre`: the name of the rule that splits text before BPE, such as `smollm`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the text of each token id, in the tokenizer's own spelling.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type` for each token: 1 normal, 2 unknown, 3 control, 4 user
    /// defined, 5 unused, 6 byte. Empty if absent.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores` for each token (SentencePiece). Empty if absent.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.merges`: pairs `left right` of BPE, the first to apply first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`: begins a sequence.
    pub bos: Option<TokenId>,
    /// `tokenizer.ggml.eos_token_id`: ends a sequence.
    pub eos: Option<TokenId>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<TokenId>,
    /// `tokenizer.ggml.padding_token_id`.
    pub padding: Option<TokenId>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`: a Jinja template.
    pub chat_template: Option<String>,
}
