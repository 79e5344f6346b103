//! `tokenizer.json`, where it describes a byte-level BPE tokenizer of a known kind.

use std::collections::{HashMap, HashSet};

use forebay_tokens::TokenId;
use serde::Deserialize;
use serde_json::Value;

use super::bpe::{AddedToken, ByteLevelBpe, Definition, WordRule};
use crate::TokenizerError;

/// A tokenizer, and the tokens that it puts before and after a bare prompt.
pub(super) type Built = (ByteLevelBpe, Vec<TokenId>, Vec<TokenId>);

/// The tokenizer that a file describes; `None` if that is of another kind, or has a setting whose
/// effect is not known here.
///
/// # Errors
/// [`TokenizerError::InvalidVocabulary`] when a merge is not of tokens.
pub(super) fn build(bytes: &[u8]) -> Result<Option<Built>, TokenizerError> {
    let Ok(file) = serde_json::from_slice::<File>(bytes) else {
        return Ok(None);
    };
    let Some((definition, prefix, suffix)) = file.definition() else {
        return Ok(None);
    };
    let bpe = ByteLevelBpe::new(&definition)?;
    Ok(bpe.map(|bpe| (bpe, prefix, suffix)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Bpe,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    id: TokenId,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bpe {
    r#type: String,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    vocab: HashMap<String, TokenId>,
    merges: Merges,
}

/// Merges in either form of the format.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merges {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

impl File {
    fn definition(&self) -> Option<(Definition<'_>, Vec<TokenId>, Vec<TokenId>)> {
        let plain = self.version == "1.0"
            && self.truncation.is_null()
            && self.padding.is_null()
            && is_byte_level(&self.decoder, None)
            && self.model.is_plain();
        let compose = match kind(&self.normalizer) {
            None if self.normalizer.is_null() => false,
            Some("NFC") => true,
            _ => return None,
        };
        if !plain {
            return None;
        }
        let unknown = match &self.model.unk_token {
            // Only the plainest treatment of unknown bytes is known here.
            Some(_) if self.model.fuse_unk == Some(true) => None,
            Some(token) => Some(*self.model.vocab.get(token)?),
            None => None,
        };
        let (prefix, suffix) = around(&self.post_processor)?;
        let tokens = self.model.vocab.iter();
        let definition = Definition {
            tokens: tokens.map(|(token, &id)| (token.as_str(), id)).collect(),
            merges: self.model.merges.pairs()?,
            added: self.added(compose)?,
            unknown,
            rule: word_rule(&self.pre_tokenizer)?,
            ignore_merges: self.model.ignore_merges == Some(true),
            compose,
        };
        Some((definition, prefix, suffix))
    }

    /// The added tokens, if all are matched in the text as it is written.
    fn added(&self, compose: bool) -> Option<Vec<AddedToken<'_>>> {
        // An id that is not in the vocabulary is given by position, whatever the file says.
        let mut next_id = TokenId::try_from(self.model.vocab.len()).ok()?;
        let mut seen = HashSet::new();
        let first = self.added_tokens.first();
        let normalized = first.is_some_and(|first| first.normalized);
        let plain = self.added_tokens.iter().all(|added| {
            let expected = self.model.vocab.get(&added.content).copied();
            let expected = expected.unwrap_or_else(|| {
                next_id += 1;
                next_id - 1
            });
            added.id == expected
                && !added.content.is_empty()
                && seen.insert(added.content.as_str())
                && !(added.single_word || added.lstrip || added.rstrip)
                && added.normalized == normalized
        });
        let added = self.added_tokens.iter().map(|added| AddedToken {
            text: &added.content,
            id: added.id,
            special: added.special,
        });
        (plain && !(normalized && compose)).then(|| added.collect())
    }
}

impl Bpe {
    fn is_plain(&self) -> bool {
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        let distinct: HashSet<_> = self.vocab.values().collect();
        self.r#type == "BPE"
            && self.dropout.is_none()
            && is_empty(&self.continuing_subword_prefix)
            && is_empty(&self.end_of_word_suffix)
            && self.byte_fallback != Some(true)
            && distinct.len() == self.vocab.len()
            // A table by id: not for ids that leave most of it empty.
            && distinct.iter().all(|&&id| (id as usize) < 4 * self.vocab.len())
    }
}

impl Merges {
    fn pairs(&self) -> Option<Vec<(&str, &str)>> {
        match self {
            Self::Pairs(pairs) => {
                let pairs = pairs.iter();
                Some(pairs.map(|(left, right)| (&**left, &**right)).collect())
            }
            Self::Lines(lines) => {
                let lines = lines.iter().filter(|line| !line.starts_with("#version"));
                let pairs = lines.map(|line| line.split_once(' '));
                pairs
                    .map(|pair| pair.filter(|(_, right)| !right.contains(' ')))
                    .collect()
            }
        }
    }
}

/// The `type` of a part.
fn kind(part: &Value) -> Option<&str> {
    part.get("type")?.as_str()
}

/// Whether a part is byte-level, and what its `use_regex` is if that is asked for.
fn is_byte_level(part: &Value, use_regex: Option<bool>) -> bool {
    let regex = part.get("use_regex").map_or(Some(true), Value::as_bool);
    kind(part) == Some("ByteLevel") && (use_regex.is_none() || regex == use_regex)
}

fn word_rule(part: &Value) -> Option<WordRule> {
    let words = |part: &Value| {
        is_byte_level(part, Some(true)) && part.get("add_prefix_space") == Some(&Value::Bool(false))
    };
    let bytes = |part: &Value| {
        is_byte_level(part, Some(false))
            && part.get("add_prefix_space") == Some(&Value::Bool(false))
    };
    if words(part) {
        return Some(WordRule::Gpt2);
    }
    let [first, second] = sequence(part, "pretokenizers")? else {
        return None;
    };
    let digits = first.get("individual_digits").and_then(Value::as_bool);
    match kind(first)? {
        "Digits" if digits == Some(true) && words(second) => Some(WordRule::DigitsThenGpt2),
        "Split" if bytes(second) => {
            let isolated = first.get("behavior")?.as_str() == Some("Isolated")
                && first.get("invert")?.as_bool() == Some(false);
            let regex = first.pointer("/pattern/Regex")?.as_str();
            match regex.filter(|_| isolated)? {
                WordRule::LLAMA_3 => Some(WordRule::Llama3),
                WordRule::QWEN_2 => Some(WordRule::Qwen2),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The parts of a `Sequence`.
fn sequence<'a>(part: &'a Value, name: &str) -> Option<&'a [Value]> {
    let parts = part.get(name).filter(|_| kind(part) == Some("Sequence"))?;
    parts.as_array().map(Vec::as_slice)
}

/// The tokens that a post-processor puts before and after a text.
fn around(part: &Value) -> Option<(Vec<TokenId>, Vec<TokenId>)> {
    if part.is_null() || is_byte_level(part, None) {
        return Some((Vec::new(), Vec::new()));
    }
    if let Some(parts) = sequence(part, "processors") {
        let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
        for part in parts {
            let (before, after) = around(part)?;
            prefix.splice(0..0, before);
            suffix.extend(after);
        }
        return Some((prefix, suffix));
    }
    if kind(part) != Some("TemplateProcessing") {
        return None;
    }
    let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
    let mut texts = 0;
    for piece in part.get("single")?.as_array()? {
        if let Some(id) = piece.pointer("/SpecialToken/id") {
            let ids = part.get("special_tokens")?.get(id.as_str()?)?.get("ids")?;
            let side = if texts == 0 { &mut prefix } else { &mut suffix };
            for id in ids.as_array()? {
                side.push(TokenId::try_from(id.as_u64()?).ok()?);
            }
        } else if piece.pointer("/Sequence/id")?.as_str() == Some("A") {
            texts += 1;
        } else {
            return None;
        }
    }
    (texts == 1).then_some((prefix, suffix))
}
