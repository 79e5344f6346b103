//! Round trips through the real model's vocabulary.

use crate::support::model;
use forebay_chat::{Detokenizer, TextDecoder, TextOptions};
use forebay_tokens::TokenId;
use proptest::prelude::*;

/// Letters of many scripts, combining marks, emoji with joiners, spaces of all kinds, digits,
/// punctuation, code, and the texts of special tokens.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z]{1,12}",
        "[ \t\n\r\u{a0}\u{3000}]{1,4}",
        "[0-9]{1,8}",
        "[!-/:-@\\[-`{-~]{1,4}",
        "[àéîõüßøłžİığ\u{301}\u{308}]{1,6}",
        "[а-яА-ЯΑ-Ωα-ωא-תء-يअ-हก-ฮ]{1,6}",
        "[一-龥ぁ-んァ-ヶ가-힣]{1,6}",
        prop_oneof![
            Just("👩‍👩‍👧‍👦"),
            Just("🏳️‍🌈"),
            Just("🇫🇷"),
            Just("½²Ⅷ"),
            Just("\u{fffd}"),
            Just("\0\u{7f}")
        ]
        .prop_map(String::from),
        prop_oneof![
            Just("<|im_end|>"),
            Just("<|im_start|>user\n"),
            Just("<|im_en"),
            Just("<empty_output>")
        ]
        .prop_map(String::from),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn text_survives(text in texts()) {
        let tokenizer = &model().tokenizer;
        let ids = tokenizer.encode(&text, false).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }

    /// Any tokens at all, most of which are no text anyone would write.
    #[test]
    fn pieces_of_random_tokens_add_up(
        ids in prop::collection::vec(prop_oneof![0..49_160u32, 0..300u32], 0..48),
        skip: bool,
    ) {
        let tokenizer = &model().tokenizer;
        let mut detokenizer = Detokenizer::new(tokenizer, skip);
        let mut text = String::new();
        for &id in &ids {
            detokenizer.push(id, &mut text).unwrap();
        }
        detokenizer.finish(&mut text).unwrap();
        prop_assert_eq!(text, tokenizer.decode(&ids, skip).unwrap());
    }

    /// However a text is tokenized and cut into steps, a stop string cuts it where it first ends.
    #[test]
    fn stop_strings_cut_across_tokens(text in texts(), at in any::<prop::sample::Index>(), step in 1..6usize) {
        let tokenizer = &model().tokenizer;
        let ids = tokenizer.encode(&text, false).unwrap();
        let characters: Vec<char> = text.chars().collect();
        prop_assume!(!characters.is_empty());
        let start = at.index(characters.len());
        let stop: String = characters[start..].iter().take(3).collect();
        let options =
            TextOptions { stop: vec![stop.clone()], skip_special: false, ..TextOptions::default() };

        let mut decoder = TextDecoder::new(tokenizer, &options);
        let mut out = String::new();
        let mut stopped = None;
        for step in ids.chunks(step) {
            let delta = decoder.push(step).unwrap();
            out.push_str(&delta.text);
            stopped = delta.stopped;
        }
        out.push_str(&decoder.finish().unwrap());
        prop_assert_eq!(stopped, Some(0));
        prop_assert_eq!(&out, &text[..text.find(&stop).unwrap()]);
    }
}

#[test]
fn end_of_turn_ends_an_answer() {
    let tokenizer = &model().tokenizer;
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(tokenizer.eos(), [2, 0]);
    assert_eq!(tokenizer.bos(), Some(1));
    assert_eq!(
        tokenizer.encode("Hello", true).unwrap(),
        [19_556 as TokenId]
    );
}
