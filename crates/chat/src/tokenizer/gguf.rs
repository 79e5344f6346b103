use std::collections::BTreeMap;

use forebay_tokens::TokenId;

use super::bpe::{AddedToken, ByteLevelBpe, Definition, WordRule};
use super::hugging_face::HuggingFace;
use super::{Model, Tokenizer};
use crate::TokenizerError;

/// `token_types` value of an ordinary token.
pub(super) const NORMAL: i32 = 1;
/// `token_types` value of the unknown token.
const UNKNOWN: i32 = 2;
/// `token_types` value of a control token, which stands for no text.
pub(super) const CONTROL: i32 = 3;
/// `token_types` value of a token that is matched in the text before all others.
const USER_DEFINED: i32 = 4;

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

pub(super) fn build(vocabulary: &GgufVocabulary) -> Result<Tokenizer, TokenizerError> {
    let definition = definition(vocabulary)?;
    let model = match ByteLevelBpe::new(&definition)? {
        Some(bpe) => Model::ByteLevel(Box::new(bpe)),
        None => Model::HuggingFace(Box::new(HuggingFace::new(&definition)?)),
    };
    let add_bos = definition.rule == WordRule::Llama3;
    let add_bos = vocabulary.add_bos.unwrap_or(add_bos);
    let prefix = vocabulary.bos.filter(|_| add_bos).into_iter().collect();
    Ok(Tokenizer::new(model, prefix, Vec::new()).with_special(vocabulary.bos, vocabulary.eos))
}

/// What a vocabulary defines.
pub(super) fn definition(vocabulary: &GgufVocabulary) -> Result<Definition<'_>, TokenizerError> {
    if vocabulary.model != "gpt2" {
        return Err(TokenizerError::UnsupportedModel(vocabulary.model.clone()));
    }
    let rule = match vocabulary.pre.as_str() {
        "gpt-2" => WordRule::Gpt2,
        "smollm" | "starcoder" | "refact" | "command-r" => WordRule::DigitsThenGpt2,
        "llama-bpe" => WordRule::Llama3,
        "qwen2" => WordRule::Qwen2,
        other => return Err(TokenizerError::UnsupportedPreTokenizer(other.to_owned())),
    };
    check(vocabulary)?;
    let merges = vocabulary.merges.iter().map(|merge| {
        let parts = merge.split_once(' ');
        parts.ok_or_else(|| invalid(format!("merge {merge:?} has no space")))
    });
    let tokens = vocabulary.tokens.iter().map(String::as_str).zip(0..);
    // The last of several alike holds, as among the tokens.
    let added: BTreeMap<&str, (TokenId, i32)> = tokens
        .clone()
        .zip(&vocabulary.token_types)
        .filter(|((text, _), kind)| {
            matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED) && !text.is_empty()
        })
        .map(|((text, id), &kind)| (text, (id, kind)))
        .collect();
    let added = added.into_iter().map(|(text, (id, kind))| AddedToken {
        text,
        id,
        special: kind != USER_DEFINED,
    });
    Ok(Definition {
        merges: merges.collect::<Result<_, _>>()?,
        added: added.collect(),
        tokens: tokens.collect(),
        unknown: vocabulary.unk,
        rule,
        ignore_merges: rule == WordRule::Llama3,
        compose: rule == WordRule::Qwen2,
    })
}

fn check(vocabulary: &GgufVocabulary) -> Result<(), TokenizerError> {
    let size = vocabulary.tokens.len();
    let types = vocabulary.token_types.len();
    if types != 0 && types != size {
        return Err(invalid(format!("{types} token types for {size} tokens")));
    }
    for (name, id) in [
        ("bos", vocabulary.bos),
        ("eos", vocabulary.eos),
        ("unk", vocabulary.unk),
    ] {
        if let Some(id) = id.filter(|&id| id as usize >= size) {
            return Err(invalid(format!("{name} is token {id} of {size}")));
        }
    }
    Ok(())
}

fn invalid(reason: String) -> TokenizerError {
    TokenizerError::InvalidVocabulary(reason)
}
