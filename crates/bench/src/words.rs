use crate::random::Random;

/// Without `q`, which the mocker's words do not have either.
const CONSONANTS: &[u8; 20] = b"bcdfghjklmnprstvwxyz";
const VOWELS: &[u8; 5] = b"aeiou";

/// Syllables of a consonant and a vowel.
const SYLLABLES: u32 = 20 * 5;

/// How many words there are.
pub(crate) const WORDS: u32 = SYLLABLES * SYLLABLES;

/// Bytes of a word and the space before it.
pub(crate) const WORD_BYTES: usize = 5;

/// The word list: every pair of two syllables, each a consonant and a vowel (`baba` ... `zuzu`),
/// with a space before it. The mocker's vocabulary has each of them as one token; with other
/// tokenizers a word is one to three tokens, and a probe tells how many on average.
#[derive(Debug)]
pub(crate) struct Words {
    bytes: Vec<[u8; WORD_BYTES]>,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self {
            bytes: (0..WORDS).map(word).collect(),
        }
    }

    /// Appends word `index`, which is below [`WORDS`].
    pub(crate) fn push(&self, index: u32, text: &mut Vec<u8>) {
        text.extend_from_slice(&self.bytes[index as usize]);
    }

    /// Appends `count` words drawn from `random`.
    pub(crate) fn push_random(&self, count: usize, random: &mut Random, text: &mut Vec<u8>) {
        text.reserve(count * WORD_BYTES);
        let mut left = count;
        // One draw is enough for four words of 13.3 bits each.
        while left > 0 {
            let mut bits = random.next();
            for _ in 0..left.min(4) {
                self.push(((bits & 0xFFFF) as u32 * WORDS) >> 16, text);
                bits >>= 16;
            }
            left -= left.min(4);
        }
    }
}

fn word(index: u32) -> [u8; WORD_BYTES] {
    let [a, b] = syllable(index / SYLLABLES);
    let [c, d] = syllable(index % SYLLABLES);
    [b' ', a, b, c, d]
}

fn syllable(index: u32) -> [u8; 2] {
    [
        CONSONANTS[(index / 5) as usize],
        VOWELS[(index % 5) as usize],
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_are_distinct_and_in_order() {
        let words = Words::new();
        assert_eq!(words.bytes.len(), 10_000);
        assert_eq!(
            words.bytes.iter().collect::<BTreeSet<_>>().len(),
            words.bytes.len()
        );
        assert_eq!(&words.bytes[0], b" baba");
        assert_eq!(words.bytes.last(), Some(b" zuzu"));
        assert!(words.bytes.is_sorted());
    }

    #[test]
    fn a_text_has_as_many_words_as_asked_for() {
        let words = Words::new();
        for count in [0, 1, 3, 4, 5, 129] {
            let mut text = Vec::new();
            words.push_random(count, &mut Random::new(1, 1), &mut text);
            assert_eq!(text.len(), count * WORD_BYTES);
            assert_eq!(text.iter().filter(|&&byte| byte == b' ').count(), count);
        }
    }
}
