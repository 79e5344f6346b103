//! Finding a token by its bytes.

use std::hash::Hasher;

use forebay_tokens::TokenId;
use hashbrown::HashTable;
use rustc_hash::FxHasher;

use crate::tokenizer::token_bytes::TokenBytes;

/// Bit of an entry: the token's bytes as a word are this token.
const WHOLE: u32 = 1 << 31;

/// The tokens of a byte-level vocabulary by their bytes, which are in a [`TokenBytes`].
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    entries: HashTable<u32>,
}

impl Vocabulary {
    /// The vocabulary of these tokens; of two with the same bytes, the later holds.
    ///
    /// # Panics
    /// If there are 2³¹ tokens or more.
    pub(super) fn new(tokens: impl ExactSizeIterator<Item = TokenId>, bytes: &TokenBytes) -> Self {
        let mut entries = HashTable::with_capacity(tokens.len());
        for token in tokens {
            assert!(
                token & WHOLE == 0,
                "a vocabulary has fewer than 2^31 tokens"
            );
            let word = bytes.get(token);
            let same = |&entry: &u32| bytes.get(entry) == word;
            match entries.entry(hash(word), same, |&entry| hash(bytes.get(entry))) {
                hashbrown::hash_table::Entry::Occupied(mut entry) => *entry.get_mut() = token,
                hashbrown::hash_table::Entry::Vacant(entry) => _ = entry.insert(token),
            }
        }
        Self { entries }
    }

    /// Decides of each token whether its bytes as a word are that token.
    pub(super) fn mark_whole(&mut self, mut is_whole: impl FnMut(TokenId) -> bool) {
        for entry in self.entries.iter_mut() {
            let token = *entry & !WHOLE;
            *entry = if is_whole(token) {
                token | WHOLE
            } else {
                token
            };
        }
    }

    /// The token that has these bytes.
    pub(super) fn token(&self, word: &[u8], bytes: &TokenBytes) -> Option<TokenId> {
        self.find(word, bytes).map(|entry| entry & !WHOLE)
    }

    /// The token that is all of this word.
    #[inline]
    pub(super) fn whole(&self, word: &[u8], bytes: &TokenBytes) -> Option<TokenId> {
        let entry = self.find(word, bytes)?;
        (entry & WHOLE != 0).then_some(entry & !WHOLE)
    }

    #[inline]
    fn find(&self, word: &[u8], bytes: &TokenBytes) -> Option<u32> {
        let same = |&entry: &u32| bytes.get(entry & !WHOLE) == word;
        self.entries.find(hash(word), same).copied()
    }
}

#[inline]
fn hash(word: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(word);
    hasher.finish()
}
