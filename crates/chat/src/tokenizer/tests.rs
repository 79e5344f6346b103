mod exact;

use super::*;
use proptest::prelude::*;

fn vocabulary(pre: &str, words: &[&str]) -> GgufVocabulary {
    let alphabet = (0..=u8::MAX).map(|byte| byte_level::char_of(byte).to_string());
    GgufVocabulary {
        model: "gpt2".into(),
        pre: pre.into(),
        tokens: alphabet
            .chain(words.iter().map(|word| (*word).to_owned()))
            .collect(),
        ..GgufVocabulary::default()
    }
}

/// Words that a pre-tokenizer cuts a text into, by both implementations.
fn words(pre: &str, text: &str) -> Vec<String> {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
    let vocabulary = vocabulary(pre, &[]);
    let rule = gguf::definition(&vocabulary).unwrap().rule;
    let mut pieces = PreTokenizedString::from(text);
    let pre_tokenizer = hugging_face::pre_tokenizer(rule).unwrap();
    pre_tokenizer.pre_tokenize(&mut pieces).unwrap();
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let expected: Vec<_> = splits
        .into_iter()
        .map(|(_, (start, end), _)| text[start..end].to_owned())
        .collect();

    let mut words = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = rule.end(text, start);
        words.push(text[start..end].to_owned());
        start = end;
    }
    assert_eq!(words, expected, "{pre}");
    words
}

#[test]
fn bytes_are_their_own_tokens() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.vocab_size(), 259);
    let ids = tokenizer.encode("é\n<|im_end|>", true).unwrap();
    assert_eq!(ids, [0xc3, 0xa9, 0x0a, 257]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "é\n");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "é\n<|im_end|>");
    assert_eq!(tokenizer.eos(), [257, 258]);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos_token().as_deref()),
        (None, Some("<|im_end|>"))
    );
    assert_eq!(tokenizer.token_bytes(0xc3), [0xc3]);
    assert_eq!(tokenizer.token_text(0xc3), "\u{fffd}");
    assert_eq!(tokenizer.token_bytes(257), b"<|im_end|>");
    assert_eq!(tokenizer.token_bytes(259), b"");
    assert!(tokenizer.is_special(256) && !tokenizer.is_special(0) && !tokenizer.is_special(259));
}

/// Expected words follow from the regular expressions that the models' own tokenizers publish.
#[test]
fn pre_tokenizers_cut_as_their_models_do() {
    let text = "It's 2024!!  Näher\r\n\r\nDON'T 12345 ½\n";
    assert_eq!(
        words("gpt-2", text),
        [
            "It", "'s", " 2024", "!!", " ", " Näher", "\r\n\r", "\n", "DON", "'", "T", " 12345",
            " ½", "\n"
        ]
    );
    assert_eq!(
        words("smollm", text),
        [
            "It", "'s", " ", "2", "0", "2", "4", "!!", " ", " Näher", "\r\n\r", "\n", "DON", "'",
            "T", " ", "1", "2", "3", "4", "5", " ", "½", "\n"
        ]
    );
    assert_eq!(
        words("llama-bpe", text),
        [
            "It", "'s", " ", "202", "4", "!!", " ", " Näher", "\r\n\r\n", "DON", "'T", " ", "123",
            "45", " ", "½", "\n"
        ]
    );
    assert_eq!(
        words("qwen2", text),
        [
            "It", "'s", " ", "2", "0", "2", "4", "!!", " ", " Näher", "\r\n\r\n", "DON", "'T", " ",
            "1", "2", "3", "4", "5", " ", "½", "\n"
        ]
    );
}

#[test]
fn merges_and_special_tokens_of_a_vocabulary() {
    let mut gguf = vocabulary("gpt-2", &["ab", "abc", "<s>", "<tool>", "</s>"]);
    gguf.merges = vec!["a b".into(), "ab c".into()];
    gguf.token_types = vec![1; 256].into_iter().chain([1, 1, 3, 4, 1]).collect();
    gguf.bos = Some(258);
    gguf.eos = Some(256);
    let tokenizer = Tokenizer::from_gguf(GgufVocabulary {
        add_bos: Some(true),
        ..gguf.clone()
    });
    let tokenizer = tokenizer.unwrap();
    assert_eq!(
        tokenizer.encode("abcab<s><tool>", false).unwrap(),
        [257, 256, 258, 259]
    );
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [258, 256]);
    // User-defined tokens are text; an ordinary token that looks like an end is none.
    assert_eq!(
        tokenizer.decode(&[258, 259, 256], true).unwrap(),
        "<tool>ab"
    );
    assert_eq!(tokenizer.eos(), [256]);

    let without = Tokenizer::from_gguf(gguf.clone()).unwrap();
    assert_eq!(without.encode("ab", true).unwrap(), [256]);
    let llama = Tokenizer::from_gguf(GgufVocabulary {
        pre: "llama-bpe".into(),
        ..gguf
    })
    .unwrap();
    assert_eq!(llama.encode("ab", true).unwrap(), [258, 256]);

    let with = without.with_special(Some(259), [257]);
    assert_eq!((with.bos(), with.eos()), (Some(259), &[257, 256][..]));
}

#[test]
fn what_is_not_supported_is_named() {
    let error = |gguf| Tokenizer::from_gguf(gguf).unwrap_err().to_string();
    let good = vocabulary("gpt-2", &[]);
    let pre = GgufVocabulary {
        pre: "tekken".into(),
        ..good.clone()
    };
    assert_eq!(error(pre), r#"unsupported pre-tokenizer "tekken""#);
    let model = GgufVocabulary {
        model: "llama".into(),
        ..good.clone()
    };
    assert_eq!(error(model), r#"unsupported vocabulary model "llama""#);
    let eos = GgufVocabulary {
        eos: Some(256),
        ..good.clone()
    };
    assert_eq!(error(eos), "invalid vocabulary: eos is token 256 of 256");
    let types = GgufVocabulary {
        token_types: vec![1],
        ..good.clone()
    };
    assert_eq!(
        error(types),
        "invalid vocabulary: 1 token types for 256 tokens"
    );
    let merges = GgufVocabulary {
        merges: vec!["ab".into()],
        ..good.clone()
    };
    assert_eq!(
        error(merges),
        r#"invalid vocabulary: merge "ab" has no space"#
    );
    let merges = GgufVocabulary {
        merges: vec!["a b".into()],
        ..good.clone()
    };
    assert_eq!(
        error(merges),
        r#"invalid vocabulary: merge "a b" is not of tokens"#
    );
    assert!(matches!(
        Tokenizer::from_json(b"{}"),
        Err(TokenizerError::Definition(_))
    ));
    let cut_off = br#"{"decoder":{"type":"WordPiece","pr"}}"#;
    assert!(matches!(
        Tokenizer::from_json(cut_off),
        Err(TokenizerError::Definition(_))
    ));
}

proptest! {
    #[test]
    fn the_table_of_bytes_is_the_decoder(ids in prop::collection::vec(0..262u32, 0..40), skip: bool) {
        let tokenizer = Tokenizer::bytes();
        let bytes: Vec<u8> = ids
            .iter()
            .filter(|&&id| !(skip && tokenizer.is_special(id)))
            .flat_map(|&id| tokenizer.token_bytes(id).to_vec())
            .collect();
        prop_assert_eq!(String::from_utf8_lossy(&bytes), tokenizer.decode(&ids, skip).unwrap());
    }
}

#[test]
fn a_text_beyond_the_limit_is_refused() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(
        tokenizer.encode_within("abc", false, 3).unwrap(),
        [97, 98, 99]
    );
    let error = tokenizer.encode_within("abcd", false, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the text has at least 4 tokens, more than the limit of 3"
    );
    // The longest token, `<|endoftext|>`, has 13 bytes.
    let error = tokenizer.encode_within(&"a".repeat(13_000_000), false, 100);
    assert!(matches!(
        error,
        Err(TokenizerError::TooLong {
            limit_tokens: 100,
            at_least_tokens: 1_000_000
        })
    ));
}
