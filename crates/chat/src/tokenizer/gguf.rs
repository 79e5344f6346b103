use forebay_tokens::TokenId;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::Tokenizer;
use crate::TokenizerError;

/// `token_types` value of an ordinary token.
pub(super) const NORMAL: i32 = 1;
/// `token_types` value of the unknown token.
const UNKNOWN: i32 = 2;
/// `token_types` value of a control token, which stands for no text.
pub(super) const CONTROL: i32 = 3;
/// `token_types` value of a token that is matched in the text before all others.
const USER_DEFINED: i32 = 4;

/// The regular expression of Llama 3.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The regular expression of Qwen 2: Llama 3's, with single digits.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tokenizer metadata of a GGUF file (keys `tokenizer.ggml.*`).
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// Kind of vocabulary (`model`); `gpt2`, byte-level BPE, is supported.
    pub model: String,
    /// Name of the pre-tokenizer (`pre`): `gpt-2`, `smollm`, `starcoder`, `refact`, `command-r`,
    /// `llama-bpe` or `qwen2`.
    pub pre: String,
    /// Vocabulary entries by id (`tokens`).
    pub tokens: Vec<String>,
    /// Merges in the order of their rank, two entries separated by a space (`merges`).
    pub merges: Vec<String>,
    /// Type of each token (`token_type`): 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused,
    /// 6 byte. Empty when the file has none: all tokens are normal.
    pub token_types: Vec<i32>,
    /// Token that begins a text (`bos_token_id`).
    pub bos: Option<TokenId>,
    /// Token that ends a text (`eos_token_id`).
    pub eos: Option<TokenId>,
    /// Token for what the vocabulary cannot express (`unknown_token_id`).
    pub unk: Option<TokenId>,
    /// Whether a bare prompt begins with `bos` (`add_bos_token`); without it, only `llama-bpe`'s
    /// does.
    pub add_bos: Option<bool>,
}

/// How a family of models cuts a text into words.
struct WordRule {
    pre_tokenizer: PreTokenizerWrapper,
    /// A word that is in the vocabulary is that token, whatever the merges.
    ignore_merges: bool,
    /// The text is brought into Unicode's composed form first.
    compose: bool,
    add_bos: bool,
}

impl WordRule {
    fn named(name: &str) -> Result<Self, TokenizerError> {
        let plain = |pre_tokenizer| Self {
            pre_tokenizer,
            ignore_merges: false,
            compose: false,
            add_bos: false,
        };
        Ok(match name {
            "gpt-2" => plain(byte_level(true)),
            "smollm" | "starcoder" | "refact" | "command-r" => plain(sequence([
                PreTokenizerWrapper::Digits(Digits::new(true)),
                byte_level(true),
            ])),
            "llama-bpe" => Self {
                ignore_merges: true,
                add_bos: true,
                ..plain(sequence([isolate(LLAMA_3)?, byte_level(false)]))
            },
            "qwen2" => Self {
                compose: true,
                ..plain(sequence([isolate(QWEN_2)?, byte_level(false)]))
            },
            _ => return Err(TokenizerError::UnsupportedPreTokenizer(name.to_owned())),
        })
    }
}

fn byte_level(use_regex: bool) -> PreTokenizerWrapper {
    PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, use_regex))
}

fn sequence<const N: usize>(steps: [PreTokenizerWrapper; N]) -> PreTokenizerWrapper {
    PreTokenizerWrapper::Sequence(Sequence::new(steps.into()))
}

fn isolate(regex: &str) -> Result<PreTokenizerWrapper, TokenizerError> {
    let pattern = SplitPattern::Regex(regex.to_owned());
    Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        .map(PreTokenizerWrapper::Split)
        .map_err(TokenizerError::Definition)
}

pub(super) fn build(vocabulary: GgufVocabulary) -> Result<Tokenizer, TokenizerError> {
    if vocabulary.model != "gpt2" {
        return Err(TokenizerError::UnsupportedModel(vocabulary.model));
    }
    let rule = WordRule::named(&vocabulary.pre)?;
    check(&vocabulary)?;
    let GgufVocabulary {
        tokens,
        merges,
        token_types,
        bos,
        eos,
        unk,
        add_bos,
        ..
    } = vocabulary;

    let merges = merges
        .into_iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(TokenizerError::InvalidVocabulary(format!(
                "merge {merge:?} has no space"
            ))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let added: Vec<_> = token_types
        .iter()
        .zip(&tokens)
        .filter_map(|(&token_type, token)| match token_type {
            UNKNOWN | CONTROL => Some(AddedToken::from(token.clone(), true)),
            USER_DEFINED => Some(AddedToken::from(token.clone(), false).normalized(false)),
            _ => None,
        })
        .collect();

    let mut bpe = BPE::builder().ignore_merges(rule.ignore_merges);
    if let Some(unk) = unk {
        bpe = bpe.unk_token(tokens[unk as usize].clone());
    }
    let entries = tokens.into_iter().zip(0..).collect::<Vocab>();
    let bpe = bpe
        .vocab_and_merges(entries, merges)
        .build()
        .map_err(TokenizerError::Definition)?;

    let mut model = tokenizers::Tokenizer::new(bpe);
    if rule.compose {
        model
            .with_normalizer(Some(NFC))
            .map_err(TokenizerError::Definition)?;
    }
    model.with_pre_tokenizer(Some(rule.pre_tokenizer));
    model.with_decoder(Some(ByteLevel::default()));
    model
        .add_tokens(added)
        .map_err(TokenizerError::Definition)?;

    let prefix = bos.filter(|_| add_bos.unwrap_or(rule.add_bos));
    Ok(Tokenizer::from_parts(model, prefix, bos, eos))
}

fn check(vocabulary: &GgufVocabulary) -> Result<(), TokenizerError> {
    let invalid = |reason| Err(TokenizerError::InvalidVocabulary(reason));
    let size = vocabulary.tokens.len();
    let types = vocabulary.token_types.len();
    if types != 0 && types != size {
        return invalid(format!("{types} token types for {size} tokens"));
    }
    for (name, id) in [
        ("bos", vocabulary.bos),
        ("eos", vocabulary.eos),
        ("unk", vocabulary.unk),
    ] {
        if let Some(id) = id.filter(|&id| id as usize >= size) {
            return invalid(format!("{name} is token {id} of {size}"));
        }
    }
    Ok(())
}
