use std::ops::Range;

use forebay_tokens::TokenId;

/// Sounds that begin a syllable. Those of two letters are tokens of their own.
const ONSETS: [&str; 25] = [
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "x", "y",
    "z", "br", "ch", "sh", "st", "tr",
];
const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];

const BYTES: u32 = 256;
const CLUSTERS: u32 = 5;
const SYLLABLES: u32 = (ONSETS.len() * VOWELS.len()) as u32;
/// Words have two syllables.
const N_WORDS: u32 = SYLLABLES * SYLLABLES;
const CONTROLS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The tokens that are a word with the space before it.
pub(crate) const WORDS: Range<TokenId> = {
    let start = BYTES + CLUSTERS + 2 * SYLLABLES + N_WORDS;
    start..start + N_WORDS
};

/// Tokens in all: 31,764.
pub(crate) const VOCABULARY_SIZE: u32 = WORDS.end + CONTROLS.len() as u32;

/// `<|im_end|>`.
pub(crate) const EOS: TokenId = VOCABULARY_SIZE - 1;

/// Kinds of tokens in GGUF files.
const ORDINARY: i32 = 1;
const CONTROL: i32 = 3;

/// How byte-level vocabularies write a space.
const SPACE: &str = "\u{120}";

const CHAT_TEMPLATE: &str = "{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A byte-level BPE vocabulary as plain data, in the terms of a GGUF file's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vocabulary {
    /// Kind of vocabulary (`tokenizer.ggml.model`).
    pub model: &'static str,
    /// Name of the pre-tokenizer (`tokenizer.ggml.pre`).
    pub pre: &'static str,
    /// Entries by token id, in the byte-level alphabet of GPT-2.
    pub tokens: Vec<String>,
    /// Merges in the order of their rank, two entries separated by a space.
    pub merges: Vec<String>,
    /// Kind of each token: 1 ordinary, 3 control.
    pub token_types: Vec<i32>,
    /// The token that ends an answer: `<|im_end|>`.
    pub eos: TokenId,
    /// The chat template: ChatML.
    pub chat_template: &'static str,
}

/// The mocker's own vocabulary: no file is needed, and what it says can be read aloud.
///
/// 31,764 tokens: the 256 bytes (a byte is the token of its value); five pairs of consonants; 125
/// syllables such as `ba` and `tro`, 15,625 words of two syllables, and both with a space before
/// them; `<|endoftext|>`, `<|im_start|>` and `<|im_end|>`. Made in a few milliseconds, always the
/// same.
pub fn vocabulary() -> Vocabulary {
    let clusters = ONSETS.iter().filter(|onset| onset.len() == 2);
    let (syllables, words) = (syllables(), words());

    let mut tokens: Vec<String> = Vec::with_capacity(VOCABULARY_SIZE as usize);
    tokens.extend((0..=u8::MAX).map(|byte| byte_level(byte).to_string()));
    tokens.extend(clusters.clone().map(|cluster| (*cluster).to_owned()));
    tokens.extend(syllables.iter().cloned());
    tokens.extend(joined(&[SPACE], "", &syllables));
    tokens.extend(words.iter().cloned());
    tokens.extend(joined(&[SPACE], "", &words));
    let mut token_types = vec![ORDINARY; tokens.len()];
    tokens.extend(CONTROLS.map(str::to_owned));
    token_types.resize(tokens.len(), CONTROL);

    // A consonant is followed by another only in a cluster, and a syllable ends with its vowel, so
    // each word comes together in one way. A space joins last: words first, then syllables alone.
    let mut merges: Vec<String> = Vec::with_capacity(tokens.len());
    merges.extend(clusters.map(|cluster| [&cluster[..1], &cluster[1..]].join(" ")));
    merges.extend(joined(&ONSETS, " ", &VOWELS));
    merges.extend(joined(&syllables, " ", &syllables));
    merges.extend(joined(&[SPACE], " ", &words));
    merges.extend(joined(&[SPACE], " ", &syllables));

    Vocabulary {
        model: "gpt2",
        pre: "gpt-2",
        tokens,
        merges,
        token_types,
        eos: EOS,
        chat_template: CHAT_TEMPLATE,
    }
}

/// The words of [`vocabulary`]: written after a space, each is one token. 15,625 of them, all
/// different, of four to six letters.
pub fn one_token_words() -> impl Iterator<Item = String> {
    words().into_iter()
}

fn syllables() -> Vec<String> {
    joined(&ONSETS, "", &VOWELS)
}

fn words() -> Vec<String> {
    let syllables = syllables();
    joined(&syllables, "", &syllables)
}

/// Each of `left` with each of `right`, and `between` between them.
fn joined(left: &[impl AsRef<str>], between: &str, right: &[impl AsRef<str>]) -> Vec<String> {
    let with = |left| {
        let join = move |right: &_| [AsRef::as_ref(left), between, AsRef::as_ref(right)].concat();
        right.iter().map(join)
    };
    left.iter().flat_map(with).collect()
}

/// How GPT-2's alphabet writes a byte: as it is if it is visible, else as one of the characters
/// from 256 on, in order.
fn byte_level(byte: u8) -> char {
    let is_visible = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_visible(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !is_visible(byte)).count() as u32;
    char::from_u32(256 + before).expect("a few beyond 256 are characters")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_has_its_size_and_no_token_twice() {
        let vocabulary = vocabulary();
        assert_eq!(vocabulary.tokens.len(), VOCABULARY_SIZE as usize);
        assert_eq!(vocabulary.token_types.len(), VOCABULARY_SIZE as usize);
        let distinct: HashSet<_> = vocabulary.tokens.iter().collect();
        assert_eq!(distinct.len(), vocabulary.tokens.len());
        assert_eq!(vocabulary.tokens[vocabulary.eos as usize], "<|im_end|>");
        assert_eq!(VOCABULARY_SIZE, 31_764);
    }

    #[test]
    fn bytes_are_written_as_gpt_2_writes_them() {
        assert_eq!(byte_level(b'a'), 'a');
        assert_eq!(byte_level(b' ').to_string(), SPACE);
        assert_eq!(byte_level(b'\n'), '\u{10a}');
        assert_eq!(byte_level(0xad), '\u{143}');
    }

    #[test]
    fn every_merge_makes_a_token() {
        let vocabulary = vocabulary();
        let tokens: HashSet<_> = vocabulary.tokens.iter().map(String::as_str).collect();
        for merge in &vocabulary.merges {
            let (left, right) = merge.split_once(' ').expect("two parts");
            assert!(tokens.contains(left) && tokens.contains(right), "{merge}");
            assert!(
                tokens.contains(format!("{left}{right}").as_str()),
                "{merge}"
            );
        }
    }

    #[test]
    fn words_are_the_range_that_answers_are_made_of() {
        let tokens = vocabulary().tokens;
        for (word, id) in one_token_words().zip(WORDS) {
            assert_eq!(tokens[id as usize], format!("{SPACE}{word}"));
        }
        assert_eq!(one_token_words().count(), WORDS.len());
    }
}
