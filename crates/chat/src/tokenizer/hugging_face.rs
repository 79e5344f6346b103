//! The `tokenizers` library of Hugging Face, for what our own implementation does not cover.

use forebay_tokens::TokenId;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::bpe::{Definition, WordRule};
use super::token_bytes::TokenBytes;
use crate::TokenizerError;

/// Any tokenizer of the library.
#[derive(Clone)]
pub(super) struct HuggingFace {
    model: tokenizers::Tokenizer,
    token_bytes: TokenBytes,
    /// Whether each byte of a text is in one of its tokens.
    covers: bool,
}

/// What of a `tokenizer.json` has to be read before the library reads it, which panics at what is no
/// JSON there.
#[derive(Deserialize)]
struct Checked {
    #[serde(default, rename = "decoder")]
    _decoder: Value,
}

impl HuggingFace {
    /// The library's tokenizer of a byte-level definition.
    ///
    /// # Errors
    /// [`TokenizerError::Definition`] when the library refuses it.
    pub(super) fn new(definition: &Definition<'_>) -> Result<Self, TokenizerError> {
        let model = byte_level_bpe(definition).map_err(TokenizerError::Definition)?;
        Ok(Self::of(model))
    }

    /// The tokenizer of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Definition`] when the bytes are not a valid definition.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        serde_json::from_slice::<Checked>(bytes)
            .map_err(|error| TokenizerError::Definition(error.into()))?;
        let model = tokenizers::Tokenizer::from_bytes(bytes).map_err(TokenizerError::Definition)?;
        Ok(Self::of(model))
    }

    fn of(model: tokenizers::Tokenizer) -> Self {
        Self {
            token_bytes: TokenBytes::of(&model),
            covers: covers(&model),
            model,
        }
    }

    pub(super) fn token_bytes(&self) -> &TokenBytes {
        &self.token_bytes
    }

    pub(super) fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.model.token_to_id(token)
    }

    /// Whether decoding is the concatenation of the tokens' bytes.
    pub(super) fn is_concatenative(&self) -> bool {
        matches!(self.model.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
    }

    /// The fewest tokens that a text can have, by its length: none where a token may stand for a
    /// text of any length.
    pub(super) fn fewest_tokens(&self, text: &str) -> usize {
        match self.covers {
            true => self.token_bytes.fewest_tokens(text.len()),
            false => 0,
        }
    }

    pub(super) fn encode(
        &self,
        text: &str,
        add_special: bool,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = self
            .model
            .encode_fast(text, add_special)
            .map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn decode(
        &self,
        ids: &[TokenId],
        skip_special: bool,
    ) -> Result<String, TokenizerError> {
        self.model
            .decode(ids, skip_special)
            .map_err(TokenizerError::Decode)
    }
}

fn byte_level_bpe(definition: &Definition<'_>) -> tokenizers::Result<tokenizers::Tokenizer> {
    let vocabulary = definition.tokens.iter();
    let vocabulary: Vocab = vocabulary
        .map(|&(token, id)| (token.to_owned(), id))
        .collect();
    let merges = definition.merges.iter();
    let merges = merges.map(|&(left, right)| (left.to_owned(), right.to_owned()));
    let mut bpe = BPE::builder()
        .ignore_merges(definition.ignore_merges)
        .vocab_and_merges(vocabulary, merges.collect::<Vec<_>>());
    if let Some(unknown) = definition.unknown {
        let mut tokens = definition.tokens.iter();
        if let Some(&(token, _)) = tokens.find(|&&(_, id)| id == unknown) {
            bpe = bpe.unk_token(token.to_owned());
        }
    }
    let mut model = tokenizers::Tokenizer::new(bpe.build()?);
    if definition.compose {
        model.with_normalizer(Some(NFC))?;
    }
    model.with_pre_tokenizer(Some(pre_tokenizer(definition.rule)?));
    model.with_decoder(Some(ByteLevel::default()));
    let added = definition
        .added
        .iter()
        .map(|added| AddedToken::from(added.text, added.special).normalized(false));
    model.add_tokens(added)?;
    Ok(model)
}

pub(super) fn pre_tokenizer(rule: WordRule) -> tokenizers::Result<PreTokenizerWrapper> {
    let byte_level =
        |use_regex| PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, use_regex));
    let isolate = |regex: &str| {
        let pattern = SplitPattern::Regex(regex.to_owned());
        Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map(PreTokenizerWrapper::Split)
    };
    let steps = match rule {
        WordRule::Gpt2 => return Ok(byte_level(true)),
        WordRule::DigitsThenGpt2 => [
            PreTokenizerWrapper::Digits(Digits::new(true)),
            byte_level(true),
        ],
        WordRule::Llama3 => [isolate(WordRule::LLAMA_3)?, byte_level(false)],
        WordRule::Qwen2 => [isolate(WordRule::QWEN_2)?, byte_level(false)],
    };
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps.into())))
}

/// Whether each byte of any text is in one of its tokens.
fn covers(model: &tokenizers::Tokenizer) -> bool {
    let added = model.get_added_tokens_decoder();
    let strips = added.values().any(|added| added.lstrip || added.rstrip);
    let mut alphabet = ByteLevel::alphabet().into_iter();
    model.get_normalizer().is_none()
        && !strips
        && model.get_pre_tokenizer().is_some_and(keeps_bytes)
        && alphabet.all(|byte| model.token_to_id(&byte.to_string()).is_some())
}

/// Whether a pre-tokenizer leaves out nothing and ends in the bytes' characters.
fn keeps_bytes(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    let cuts = |step: &PreTokenizerWrapper| match step {
        PreTokenizerWrapper::Split(split) => split.behavior != SplitDelimiterBehavior::Removed,
        PreTokenizerWrapper::Digits(_) => true,
        _ => false,
    };
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(_) => true,
        PreTokenizerWrapper::Sequence(steps) => match steps.as_ref() {
            [first @ .., PreTokenizerWrapper::ByteLevel(_)] => first.iter().all(cuts),
            _ => false,
        },
        _ => false,
    }
}
