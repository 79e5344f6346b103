//! The same tokens as Hugging Face's `tokenizers`, for the real vocabulary with every pre-tokenizer.

use std::sync::OnceLock;

use crate::oracle::{PRE, tokenizer_json};
use crate::support::{model, testdata};
use crate::vocabulary::texts;
use forebay_chat::{GgufVocabulary, Tokenizer};
use forebay_tokens::TokenId;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A vocabulary in our implementation, from both formats, and in the library.
struct Pair {
    pre: &'static str,
    gguf: Tokenizer,
    json: Tokenizer,
    oracle: tokenizers::Tokenizer,
}

fn pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let pairs = PRE.map(|pre| {
            let vocabulary = GgufVocabulary {
                pre: pre.to_owned(),
                add_bos: None,
                ..model().vocabulary.clone()
            };
            let json = tokenizer_json(&vocabulary, pre).to_string();
            Pair {
                pre,
                gguf: Tokenizer::from_gguf(vocabulary).unwrap(),
                json: Tokenizer::from_json(json.as_bytes()).unwrap(),
                oracle: tokenizers::Tokenizer::from_bytes(json).unwrap(),
            }
        });
        pairs.into()
    })
}

impl Pair {
    fn check(&self, text: &str, add_special: bool) {
        let expected = self.oracle.encode_fast(text, add_special).unwrap();
        let expected = expected.get_ids();
        for (format, tokenizer) in [("GGUF", &self.gguf), ("JSON", &self.json)] {
            let ids = tokenizer.encode(text, add_special).unwrap();
            assert_eq!(ids, expected, "{} from {format}: {text:?}", self.pre);
            let whole = tokenizer.encode_within(text, add_special, ids.len());
            assert_eq!(whole.unwrap(), expected);
            if let Some(less) = ids.len().checked_sub(1) {
                tokenizer
                    .encode_within(text, add_special, less)
                    .unwrap_err();
            }
            let decoded = self.oracle.decode(expected, false).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), decoded);
        }
    }
}

fn check(text: &str) {
    for pair in pairs() {
        pair.check(text, false);
        pair.check(text, true);
    }
}

/// The texts of `testdata/texts`.
fn corpus() -> &'static [String] {
    static CORPUS: OnceLock<Vec<String>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let files = std::fs::read_dir(testdata("texts")).unwrap();
        let read = |file: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(file.unwrap().path()).unwrap()
        };
        let mut texts: Vec<_> = files.map(read).collect();
        texts.sort();
        assert_eq!(texts.len(), 7);
        texts
    })
}

#[test]
fn the_corpus() {
    check("");
    check(&corpus().concat());
    for text in corpus() {
        check(text);
        for line in text.split_inclusive('\n') {
            check(line);
        }
    }
}

/// Wherever a text begins and ends.
#[test]
fn every_place_of_the_corpus() {
    const CHARACTERS: usize = 24;
    let text = corpus().concat();
    let starts: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
    for window in starts.windows(CHARACTERS) {
        let text = &text[window[0]..window[CHARACTERS - 1]];
        for pair in pairs() {
            let expected = pair.oracle.encode_fast(text, false).unwrap();
            let ids = pair.gguf.encode(text, false).unwrap();
            assert_eq!(ids, expected.get_ids(), "{}: {text:?}", pair.pre);
        }
    }
}

#[test]
fn long_runs() {
    let units = [
        "a",
        "A",
        "é",
        "漢",
        "漢字仮名交じり文",
        " ",
        "\n",
        "\r\n",
        "\t",
        " \n",
        "7",
        "12",
        ".",
        "#",
        "-=",
        "\u{301}",
        "e\u{301}",
        "👩‍👩‍👧‍👦",
        "ab",
        "abc",
        "tion",
        "ing",
        "\0",
        "\u{10ffff}",
        "<|im_end|>",
        "'s",
    ];
    for unit in units {
        for bytes in [41, 300, 2049, 5000] {
            let run = unit.repeat(bytes / unit.len());
            for text in [format!(" {run} "), format!("x{run}y"), run] {
                pairs().iter().for_each(|pair| pair.check(&text, false));
            }
        }
    }
}

#[test]
fn every_token_alone_and_in_company() {
    let Pair { gguf, oracle, .. } = &pairs()[1];
    let text = |id| String::from_utf8_lossy(gguf.token_bytes(id)).into_owned();
    for id in 0..gguf.vocab_size() as TokenId {
        let other = (id * 7919 + 13) % 49_152;
        for text in [text(id), text(id) + &text(other)] {
            let expected = oracle.encode_fast(text.as_str(), false).unwrap();
            assert_eq!(gguf.encode(&text, false).unwrap(), expected.get_ids());
        }
        let entry = oracle.id_to_token(id).unwrap();
        assert_eq!(gguf.token_to_id(&entry), oracle.token_to_id(&entry));
    }
}

/// Pieces of the corpus, tokens and any text, in any order.
fn recombined() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => (select(corpus()), any::<Index>(), 1..12usize).prop_map(|(text, at, length)| {
            let characters = text.chars().count();
            text.chars().skip(at.index(characters)).take(length).collect()
        }),
        2 => (0..49_152u32).prop_map(|id| {
            String::from_utf8_lossy(pairs()[0].gguf.token_bytes(id)).into_owned()
        }),
        1 => any::<String>(),
        1 => select(vec![" ", "\n", "'", "1", "\r"]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text(text in texts()) {
        check(&text);
    }

    #[test]
    fn recombined_texts(text in recombined()) {
        check(&text);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Words without an end, whose tokens depend on each other over their length.
    #[test]
    fn long_words(letters in "[a-eé漢ст]{1,5}", picks in prop::collection::vec(0..5usize, 40..4000)) {
        let letters: Vec<_> = letters.chars().collect();
        let word: String = picks.iter().map(|pick| letters[pick % letters.len()]).collect();
        check(&word);
    }
}
