//! Byte-level BPE.

mod classes;
mod merges;
mod vocabulary;
mod words;

use std::borrow::Cow;
use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};
use forebay_tokens::TokenId;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::byte_level::append_bytes;
use super::token_bytes::TokenBytes;
use crate::TokenizerError;
use merges::{Merges, Scratch};
use vocabulary::Vocabulary;
pub(super) use words::WordRule;

/// What a byte-level BPE tokenizer is made of, in the spelling of its vocabulary.
pub(super) struct Definition<'a> {
    /// Vocabulary entries; of two alike, the later holds.
    pub(super) tokens: Vec<(&'a str, TokenId)>,
    /// Merges in the order of their rank.
    pub(super) merges: Vec<(&'a str, &'a str)>,
    /// Tokens that are matched in the text before all others: the leftmost first, the longest of
    /// several there. None is empty, and none is there twice.
    pub(super) added: Vec<AddedToken<'a>>,
    /// The token of a byte that has none of its own.
    pub(super) unknown: Option<TokenId>,
    pub(super) rule: WordRule,
    /// A word that is in the vocabulary is that token, whatever the merges.
    pub(super) ignore_merges: bool,
    /// The text is brought into Unicode's composed form first.
    pub(super) compose: bool,
}

/// A token that is matched in the text as it is written.
pub(super) struct AddedToken<'a> {
    pub(super) text: &'a str,
    pub(super) id: TokenId,
    pub(super) special: bool,
}

/// A byte-level BPE tokenizer, exact and fast: a word that is a token costs one look-up, others are
/// merged. There is no cache: nothing to bound, nothing to lock.
#[derive(Clone)]
pub(super) struct ByteLevelBpe {
    token_bytes: TokenBytes,
    vocabulary: Vocabulary,
    merges: Merges,
    added: AhoCorasick,
    added_ids: Vec<TokenId>,
    /// Entries that are not found by their bytes: added tokens, and what is no bytes' spelling.
    named: HashMap<String, TokenId>,
    rule: WordRule,
    compose: bool,
}

impl ByteLevelBpe {
    /// The tokenizer of a definition; `None` if bytes that texts are made of have no token.
    ///
    /// # Errors
    /// [`TokenizerError::InvalidVocabulary`] when a merge is not of tokens.
    pub(super) fn new(definition: &Definition<'_>) -> Result<Option<Self>, TokenizerError> {
        classes::prepare();
        let token_bytes = token_bytes(definition);
        let mut named = HashMap::new();
        let mut spelled = Vec::with_capacity(definition.tokens.len());
        let mut bytes = Vec::new();
        for &(token, id) in &definition.tokens {
            bytes.clear();
            match append_bytes(token, &mut bytes) {
                Some(()) => spelled.push(id),
                None => _ = named.insert(token.to_owned(), id),
            }
        }
        let added = definition.added.iter();
        named.extend(added.map(|added| (added.text.to_owned(), added.id)));

        let mut vocabulary = Vocabulary::new(spelled.into_iter(), &token_bytes);
        let Some(bytes) = byte_tokens(&vocabulary, &token_bytes, definition.unknown) else {
            return Ok(None);
        };
        let Some(merges) = merges(definition, bytes, &vocabulary, &token_bytes)? else {
            return Ok(None);
        };
        let (mut scratch, mut tokens) = (Scratch::default(), Vec::new());
        vocabulary.mark_whole(|id| {
            definition.ignore_merges || {
                tokens.clear();
                merges.append(token_bytes.get(id), &mut scratch, &mut tokens);
                tokens == [id]
            }
        });
        let texts = definition.added.iter().map(|added| added.text);
        let added = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts)
            .map_err(|error| TokenizerError::Definition(error.into()))?;
        Ok(Some(Self {
            token_bytes,
            vocabulary,
            merges,
            added,
            added_ids: definition.added.iter().map(|added| added.id).collect(),
            named,
            rule: definition.rule,
            compose: definition.compose,
        }))
    }

    pub(super) fn token_bytes(&self) -> &TokenBytes {
        &self.token_bytes
    }

    /// Id of the token whose vocabulary entry is `token`.
    pub(super) fn token_to_id(&self, token: &str) -> Option<TokenId> {
        if let Some(&id) = self.named.get(token) {
            return Some(id);
        }
        let mut bytes = Vec::new();
        append_bytes(token, &mut bytes)?;
        self.vocabulary.token(&bytes, &self.token_bytes)
    }

    /// The fewest tokens that a text can have, by its length.
    pub(super) fn fewest_tokens(&self, text: &str) -> usize {
        /// More bytes than ever become one by composing: the most are 7 that become 2.
        const COMPOSED: usize = 4;
        let bytes = match self.compose && !text.is_ascii() {
            true => text.len().div_ceil(COMPOSED),
            false => text.len(),
        };
        self.token_bytes.fewest_tokens(bytes)
    }

    /// Appends the tokens of `text` to `out`, until those have become more than `limit`.
    pub(super) fn encode(&self, text: &str, limit: usize, out: &mut Vec<TokenId>) {
        let mut scratch = Scratch::default();
        let mut start = 0;
        for found in self.added.find_iter(text) {
            self.encode_ordinary(&text[start..found.start()], limit, &mut scratch, out);
            if out.len() > limit {
                return;
            }
            out.push(self.added_ids[found.pattern()]);
            start = found.end();
        }
        self.encode_ordinary(&text[start..], limit, &mut scratch, out);
    }

    /// The same for a text without added tokens.
    fn encode_ordinary(
        &self,
        text: &str,
        limit: usize,
        scratch: &mut Scratch,
        out: &mut Vec<TokenId>,
    ) {
        let text = match self.compose {
            true => &*composed(text),
            false => text,
        };
        let mut start = 0;
        while start < text.len() && out.len() <= limit {
            let end = self.rule.end(text, start);
            let word = &text.as_bytes()[start..end];
            match self.whole(word) {
                Some(token) => out.push(token),
                None => self.merges.append(word, scratch, out),
            }
            start = end;
        }
    }

    /// The text of tokens, U+FFFD for what is not valid UTF-8.
    pub(super) fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if !(skip_special && self.token_bytes.is_special(id)) {
                bytes.extend_from_slice(self.token_bytes.get(id));
            }
        }
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The token that is all of this word.
    #[inline]
    fn whole(&self, word: &[u8]) -> Option<TokenId> {
        if word.len() > self.token_bytes.longest() {
            return None;
        }
        self.vocabulary.whole(word, &self.token_bytes)
    }
}

fn token_bytes(definition: &Definition<'_>) -> TokenBytes {
    let ids = definition.tokens.iter().map(|&(_, id)| id);
    let ids = ids.chain(definition.added.iter().map(|added| added.id));
    let size = ids.max().map_or(0, |greatest| greatest as usize + 1);
    let mut entries = vec![None; size];
    for &(token, id) in &definition.tokens {
        entries[id as usize] = Some((token, false));
    }
    for added in &definition.added {
        entries[added.id as usize] = Some((added.text, added.special));
    }
    TokenBytes::byte_level(entries.into_iter())
}

/// The token of each byte, `unknown` where there is none; `None` if that leaves out any byte that
/// a text can have.
fn byte_tokens(
    vocabulary: &Vocabulary,
    bytes: &TokenBytes,
    unknown: Option<TokenId>,
) -> Option<[TokenId; 256]> {
    /// Bytes that are in no UTF-8 text.
    const NEVER: [u8; 13] = [
        0xc0, 0xc1, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff,
    ];
    let mut tokens = [TokenId::MAX; 256];
    for byte in 0..=u8::MAX {
        let token = vocabulary.token(&[byte], bytes).or(unknown);
        match token {
            Some(token) => tokens[usize::from(byte)] = token,
            None if NEVER.contains(&byte) => {}
            None => return None,
        }
    }
    Some(tokens)
}

/// The merges of a definition; `None` if one of them is not spelled by bytes.
fn merges(
    definition: &Definition<'_>,
    byte_tokens: [TokenId; 256],
    vocabulary: &Vocabulary,
    token_bytes: &TokenBytes,
) -> Result<Option<Merges>, TokenizerError> {
    let mut merges = Merges::new(byte_tokens, definition.merges.len());
    let mut bytes = Vec::new();
    for (rank, &(left, right)) in (0..).zip(&definition.merges) {
        bytes.clear();
        let Some(()) = append_bytes(left, &mut bytes) else {
            return Ok(None);
        };
        let middle = bytes.len();
        let Some(()) = append_bytes(right, &mut bytes) else {
            return Ok(None);
        };
        let token = |bytes| vocabulary.token(bytes, token_bytes);
        let parts = (token(&bytes[..middle]), token(&bytes[middle..]));
        let ((Some(first), Some(second)), Some(merged)) = (parts, token(&bytes)) else {
            let merge = format!("{left} {right}");
            return Err(TokenizerError::InvalidVocabulary(format!(
                "merge {merge:?} is not of tokens"
            )));
        };
        merges.insert(first, second, rank, merged);
    }
    Ok(Some(merges))
}

/// `text` in Unicode's composed form.
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().map(|(character, _)| character).collect())
}
