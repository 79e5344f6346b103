mod byte_level;
mod gguf;
mod token_bytes;

use std::collections::HashSet;
use std::sync::Arc;

use forebay_tokens::TokenId;
use tokenizers::DecoderWrapper;

pub use gguf::GgufVocabulary;

use crate::TokenizerError;
use token_bytes::TokenBytes;

/// Texts of tokens that end a turn or a document in the chat formats of the field.
///
/// A model that was made for one format still emits the end of another now and then; each of them
/// that is a special token of the vocabulary ends an answer.
const END_TOKENS: [&str; 8] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
];

/// Text to token ids and back, for one model.
///
/// Cheap to clone; clones share the vocabulary.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    model: tokenizers::Tokenizer,
    token_bytes: TokenBytes,
    /// Whether decoding is the concatenation of the tokens' bytes.
    concatenative: bool,
    /// Token that `encode` puts before a text, where the model's own post-processor does not.
    prefix: Option<TokenId>,
    bos: Option<TokenId>,
    eos: Vec<TokenId>,
}

impl Tokenizer {
    /// A tokenizer from the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`TokenizerError::UnsupportedModel`] or [`TokenizerError::UnsupportedPreTokenizer`] when the
    /// file names a kind that is not supported; [`TokenizerError::InvalidVocabulary`] when its
    /// parts contradict each other.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Self, TokenizerError> {
        gguf::build(vocabulary)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`.
    ///
    /// That format does not name the begin and end tokens: the end tokens of the usual chat formats
    /// are found by their text, and [`with_special`](Self::with_special) adds the model's own.
    ///
    /// # Errors
    /// [`TokenizerError::Definition`] when the bytes are not a valid definition.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let model = tokenizers::Tokenizer::from_bytes(bytes).map_err(TokenizerError::Definition)?;
        Ok(Self::from_parts(model, None, None, []))
    }

    /// A tiny built-in tokenizer: each byte is the token of its value, and after them come the
    /// special tokens `<|im_start|>` (256), `<|im_end|>` (257, ends an answer) and
    /// `<|endoftext|>` (258, too).
    ///
    /// For tests, examples and engines without a vocabulary of their own.
    pub fn bytes() -> Self {
        byte_level::build()
    }

    fn from_parts(
        model: tokenizers::Tokenizer,
        prefix: Option<TokenId>,
        bos: Option<TokenId>,
        eos: impl IntoIterator<Item = TokenId>,
    ) -> Self {
        let concatenative = matches!(model.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let token_bytes = TokenBytes::new(&model);
        let found = END_TOKENS.iter().filter_map(|text| model.token_to_id(text));
        let eos = distinct(
            eos.into_iter()
                .chain(found.filter(|&id| token_bytes.is_special(id))),
        );
        Self(Arc::new(Inner {
            model,
            token_bytes,
            concatenative,
            prefix,
            bos,
            eos,
        }))
    }

    /// The same tokenizer with the model's own begin and end tokens, for example from its
    /// `tokenizer_config.json` and `generation_config.json`.
    ///
    /// The end tokens are added before those found by their text. Clones made earlier keep theirs.
    #[must_use]
    pub fn with_special(
        self,
        bos: Option<TokenId>,
        eos: impl IntoIterator<Item = TokenId>,
    ) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.bos = bos;
        inner.eos = distinct(eos.into_iter().chain(inner.eos));
        Self(Arc::new(inner))
    }

    /// Token ids of `text`.
    ///
    /// The texts of special tokens inside `text` become those tokens, as in the field's engines: a
    /// rendered chat prompt relies on it. `add_special` puts the tokens around the text that the
    /// model expects around a bare prompt; a rendered chat prompt has its own, so pass `false`.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the model has no token for a part of the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = self
            .0
            .model
            .encode_fast(text, add_special)
            .map_err(TokenizerError::Encode)?;
        let ids = encoding.get_ids();
        let prefix = self.0.prefix.filter(|_| add_special);
        let mut out = Vec::with_capacity(ids.len() + usize::from(prefix.is_some()));
        out.extend(prefix);
        out.extend_from_slice(ids);
        Ok(out)
    }

    /// Token ids of `text`, as [`encode`](Self::encode) gives them, if they are at most `max_tokens`.
    ///
    /// A text that is far too long is refused by its length in bytes, without being tokenized.
    ///
    /// # Errors
    /// [`TokenizerError::TooLong`] when there are more, and what `encode` fails with.
    pub fn encode_within(
        &self,
        text: &str,
        add_special: bool,
        max_tokens: usize,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let too_long = |at_least_tokens| TokenizerError::TooLong {
            limit_tokens: max_tokens,
            at_least_tokens,
        };
        // A normalizer may shorten a text by any factor.
        if self.0.concatenative && self.0.model.get_normalizer().is_none() {
            let at_least = self.0.token_bytes.fewest_tokens(text.len());
            if at_least > max_tokens {
                return Err(too_long(at_least));
            }
        }
        let ids = self.encode(text, add_special)?;
        if ids.len() > max_tokens {
            return Err(too_long(ids.len()));
        }
        Ok(ids)
    }

    /// Text of `ids`; ids outside the vocabulary have none, and invalid UTF-8 becomes U+FFFD.
    ///
    /// `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] when the tokenizer's decoder fails; that of a byte-level
    /// vocabulary never does.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> Result<String, TokenizerError> {
        self.0
            .model
            .decode(ids, skip_special)
            .map_err(TokenizerError::Decode)
    }

    /// The bytes that token `id` stands for, empty for an id outside the vocabulary.
    ///
    /// A character may be spread over several tokens, so these need not be valid UTF-8. Where a
    /// vocabulary is not byte-level, this is the token's text as within a sentence.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.0.token_bytes.get(id)
    }

    /// Text of token `id` alone, with U+FFFD for what is not valid UTF-8: the `token` of an OpenAI
    /// log probability entry, whose `bytes` are [`token_bytes`](Self::token_bytes).
    pub fn token_text(&self, id: TokenId) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// Id of the token whose vocabulary entry is `token`.
    pub fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.0.model.token_to_id(token)
    }

    /// Whether `id` is a special token: one that stands for no text, like the end of a turn.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.0.token_bytes.is_special(id)
    }

    /// One more than the greatest token id.
    pub fn vocab_size(&self) -> usize {
        self.0.token_bytes.len()
    }

    /// Token that begins a text, where the model has one.
    pub fn bos(&self) -> Option<TokenId> {
        self.0.bos
    }

    /// Text of [`bos`](Self::bos), for templates (`bos_token`).
    pub fn bos_token(&self) -> Option<String> {
        self.bos().map(|id| self.token_text(id))
    }

    /// Tokens that end an answer, the model's own first.
    pub fn eos(&self) -> &[TokenId] {
        &self.0.eos
    }

    /// Text of the first of [`eos`](Self::eos), for templates (`eos_token`).
    pub fn eos_token(&self) -> Option<String> {
        self.eos().first().map(|&id| self.token_text(id))
    }

    /// Whether decoding is the concatenation of [`token_bytes`](Self::token_bytes).
    pub(crate) fn is_concatenative(&self) -> bool {
        self.0.concatenative
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.0.bos)
            .field("eos", &self.0.eos)
            .finish_non_exhaustive()
    }
}

/// `ids` without repetitions, in their order.
fn distinct(ids: impl Iterator<Item = TokenId>) -> Vec<TokenId> {
    let mut seen = HashSet::new();
    ids.filter(|id| seen.insert(*id)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
