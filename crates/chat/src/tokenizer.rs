mod bpe;
mod byte_level;
mod gguf;
mod hugging_face;
mod json;
mod token_bytes;

use std::collections::HashSet;
use std::sync::Arc;

use forebay_tokens::TokenId;

pub use gguf::GgufVocabulary;

use crate::TokenizerError;
use bpe::ByteLevelBpe;
use hugging_face::HuggingFace;
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

/// About how long a token of a prompt is, for the memory that its ids are given at first.
const BYTES_PER_TOKEN: usize = 4;

/// Text to token ids and back, for one model.
///
/// Cheap to clone; clones share the vocabulary.
///
/// A byte-level BPE vocabulary with the word rule of GPT-2, SmolLM, Llama 3 or Qwen 2 is tokenized
/// by an implementation of our own, which gives the same tokens as Hugging Face's `tokenizers` in a
/// fraction of the time, linear in the text whatever it is. It keeps no cache and takes no lock. Any
/// other tokenizer is that library's.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    model: Model,
    /// Tokens that are put before a bare prompt, where `model` does not do so itself.
    prefix: Vec<TokenId>,
    /// Tokens that are put behind it.
    suffix: Vec<TokenId>,
    bos: Option<TokenId>,
    eos: Vec<TokenId>,
}

#[derive(Clone)]
enum Model {
    ByteLevel(Box<ByteLevelBpe>),
    HuggingFace(Box<HuggingFace>),
}

impl Model {
    fn token_bytes(&self) -> &TokenBytes {
        match self {
            Self::ByteLevel(model) => model.token_bytes(),
            Self::HuggingFace(model) => model.token_bytes(),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<TokenId> {
        match self {
            Self::ByteLevel(model) => model.token_to_id(token),
            Self::HuggingFace(model) => model.token_to_id(token),
        }
    }
}

impl Tokenizer {
    /// A tokenizer from the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`TokenizerError::UnsupportedModel`] or [`TokenizerError::UnsupportedPreTokenizer`] when the
    /// file names a kind that is not supported; [`TokenizerError::InvalidVocabulary`] when its
    /// parts contradict each other.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Self, TokenizerError> {
        gguf::build(&vocabulary)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`.
    ///
    /// That format does not name the begin and end tokens: the end tokens of the usual chat formats
    /// are found by their text, and [`with_special`](Self::with_special) adds the model's own.
    ///
    /// # Errors
    /// [`TokenizerError::Definition`] when the bytes are not a valid definition,
    /// [`TokenizerError::InvalidVocabulary`] when its parts contradict each other.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Ok(match json::build(bytes)? {
            Some((bpe, prefix, suffix)) => {
                Self::new(Model::ByteLevel(Box::new(bpe)), prefix, suffix)
            }
            None => {
                let model = HuggingFace::from_json(bytes)?;
                Self::new(Model::HuggingFace(Box::new(model)), Vec::new(), Vec::new())
            }
        })
    }

    /// A tiny built-in tokenizer: each byte is the token of its value, and after them come the
    /// special tokens `<|im_start|>` (256), `<|im_end|>` (257, ends an answer) and
    /// `<|endoftext|>` (258, too).
    ///
    /// For tests, examples and engines without a vocabulary of their own.
    pub fn bytes() -> Self {
        byte_level::build()
    }

    fn new(model: Model, prefix: Vec<TokenId>, suffix: Vec<TokenId>) -> Self {
        let found = END_TOKENS.iter().filter_map(|text| model.token_to_id(text));
        let found = found.filter(|&id| model.token_bytes().is_special(id));
        Self(Arc::new(Inner {
            eos: distinct(found),
            bos: None,
            model,
            prefix,
            suffix,
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
        self.encode_within(text, add_special, usize::MAX)
    }

    /// Token ids of `text`, as [`encode`](Self::encode) gives them, if they are at most `max_tokens`.
    ///
    /// A text that is far too long is refused by its length in bytes, without being tokenized, and
    /// any other as soon as its tokens have become too many. Of the tokenizers that are Hugging Face's,
    /// only those of byte-level vocabularies without a normalizer refuse by length, and the others
    /// tokenize the text whole.
    ///
    /// # Errors
    /// [`TokenizerError::TooLong`] when there are more, and what `encode` fails with.
    pub fn encode_within(
        &self,
        text: &str,
        add_special: bool,
        max_tokens: usize,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let Inner {
            model,
            prefix,
            suffix,
            ..
        } = &*self.0;
        let check = |at_least_tokens| match at_least_tokens > max_tokens {
            true => Err(TokenizerError::TooLong {
                limit_tokens: max_tokens,
                at_least_tokens,
            }),
            false => Ok(()),
        };
        let mut ids = Vec::new();
        if add_special {
            ids.extend_from_slice(prefix);
        }
        match model {
            Model::ByteLevel(model) => {
                check(model.fewest_tokens(text))?;
                ids.reserve(max_tokens.min(text.len() / BYTES_PER_TOKEN));
                model.encode(text, max_tokens, &mut ids);
            }
            Model::HuggingFace(model) => {
                check(model.fewest_tokens(text))?;
                ids.extend(model.encode(text, add_special)?);
            }
        }
        if add_special {
            ids.extend_from_slice(suffix);
        }
        check(ids.len())?;
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
        match &self.0.model {
            Model::ByteLevel(model) => Ok(model.decode(ids, skip_special)),
            Model::HuggingFace(model) => model.decode(ids, skip_special),
        }
    }

    /// The bytes that token `id` stands for, empty for an id outside the vocabulary.
    ///
    /// A character may be spread over several tokens, so these need not be valid UTF-8. Where a
    /// vocabulary is not byte-level, this is the token's text as within a sentence.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.0.model.token_bytes().get(id)
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
        self.0.model.token_bytes().is_special(id)
    }

    /// One more than the greatest token id.
    pub fn vocab_size(&self) -> usize {
        self.0.model.token_bytes().len()
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

    /// Whether texts are tokenized at tens of megabytes a second, by the implementation of our own.
    /// Hugging Face's library takes ten times as long, and more: for callers who must not block.
    pub fn is_fast(&self) -> bool {
        matches!(self.0.model, Model::ByteLevel(_))
    }

    /// Whether decoding is the concatenation of [`token_bytes`](Self::token_bytes).
    pub(crate) fn is_concatenative(&self) -> bool {
        match &self.0.model {
            Model::ByteLevel(_) => true,
            Model::HuggingFace(model) => model.is_concatenative(),
        }
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
