//! The same tokens as Hugging Face's `tokenizers`, for vocabularies that no one would train.

use serde_json::json;

use super::*;

const PRE: [&str; 4] = ["gpt-2", "smollm", "llama-bpe", "qwen2"];

/// Tokens that may be added, some of them within others, across words, or in the way of merges.
const ADDED: [&str; 10] = [
    "<|x|>", "<|x|>y", "<|", "|>", "ab", "é", " ", "漢 1", "\u{301}", "b'",
];

/// Merges of the bytes of the texts below and of what becomes of them, added tokens, and perhaps a
/// byte that has no token.
fn vocabularies() -> impl Strategy<Value = GgufVocabulary> {
    let merges = prop::collection::vec(any::<[prop::sample::Index; 2]>(), 0..40);
    let added = prop::sample::subsequence(ADDED.to_vec(), 0..ADDED.len());
    let missing = prop::option::of(prop::sample::select("aé漢".as_bytes()));
    (prop::sample::select(PRE.to_vec()), merges, added, missing).prop_map(
        |(pre, merges, added, missing)| {
            let mut gguf = vocabulary(pre, &[]);
            if let Some(missing) = missing {
                gguf.tokens[usize::from(missing)] = "<unk>".to_owned();
                gguf.unk = Some(missing.into());
            }
            let spelled = |byte: u8| byte_level::char_of(byte).to_string();
            let mut parts: Vec<String> = "ab é漢'1\ns".bytes().map(spelled).collect();
            parts.retain(|part| gguf.tokens.contains(part));
            for [left, right] in merges {
                let (left, right) = (left.get(&parts).clone(), right.get(&parts).clone());
                let merged = format!("{left}{right}");
                gguf.merges.push(format!("{left} {right}"));
                if !gguf.tokens.contains(&merged) {
                    gguf.tokens.push(merged.clone());
                }
                parts.push(merged);
            }
            gguf.token_types = vec![gguf::NORMAL; gguf.tokens.len()];
            for (number, text) in added.into_iter().enumerate() {
                if !gguf.tokens.iter().any(|token| token == text) {
                    gguf.tokens.push(text.to_owned());
                    gguf.token_types.push([gguf::CONTROL, 4][number % 2]);
                }
            }
            gguf
        },
    )
}

fn oracle(gguf: &GgufVocabulary) -> HuggingFace {
    HuggingFace::new(&gguf::definition(gguf).unwrap()).unwrap()
}

fn is_ours(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.0.model, Model::ByteLevel(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_vocabulary(
        gguf in vocabularies(),
        text in prop_oneof!["[ab é漢'1\ns<|x>y\u{301}]{0,48}", "(ab|é|<|x|>|y| |漢){0,40}", ".{0,16}"],
        ids in prop::collection::vec(0..320u32, 0..24),
    ) {
        let tokenizer = Tokenizer::from_gguf(gguf.clone()).unwrap();
        prop_assert!(is_ours(&tokenizer));
        let oracle = oracle(&gguf);
        let expected = oracle.encode(&text, false).unwrap();
        prop_assert_eq!(tokenizer.encode(&text, false).unwrap(), expected);
        for skip_special in [false, true] {
            prop_assert_eq!(
                tokenizer.decode(&ids, skip_special).unwrap(),
                oracle.decode(&ids, skip_special).unwrap()
            );
        }
        for (id, token) in (0..).zip(&gguf.tokens) {
            prop_assert_eq!(tokenizer.token_to_id(token), Some(id));
            prop_assert_eq!(tokenizer.token_bytes(id), oracle.token_bytes().get(id));
            prop_assert_eq!(tokenizer.is_special(id), oracle.token_bytes().is_special(id));
        }
    }
}

#[test]
fn a_byte_without_any_token_is_left_to_the_library() {
    let mut gguf = vocabulary("gpt-2", &["ab"]);
    gguf.tokens[usize::from(b'x')] = "ax".to_owned();
    gguf.merges.push("a b".to_owned());
    let tokenizer = Tokenizer::from_gguf(gguf).unwrap();
    assert!(!is_ours(&tokenizer));
    // It leaves the byte out.
    assert_eq!(tokenizer.encode("axb", false).unwrap(), [256]);
    // So that no length of a text says how many tokens it has.
    let tokens = tokenizer.encode_within(&"x".repeat(1000), false, 0);
    assert!(tokens.unwrap().is_empty());
}

#[test]
fn a_text_that_composing_shortens_is_not_refused() {
    let compose = vocabulary("qwen2", &[]);
    let tokenizer = Tokenizer::from_gguf(compose).unwrap();
    for character in '\0'..=char::MAX {
        let text = character.to_string();
        let tokens = tokenizer.encode(&text, false).unwrap().len();
        tokenizer.encode_within(&text, false, tokens).unwrap();
    }
    for text in [
        "\u{1112}\u{1161}\u{11ab}",
        "\u{3b1}\u{313}\u{300}\u{345}",
        "\u{1fbe}\u{308}\u{301}",
    ] {
        let tokens = tokenizer.encode(text, false).unwrap().len();
        tokenizer.encode_within(text, false, tokens).unwrap();
    }
}

fn tokenizer_json(pre: &str) -> serde_json::Value {
    let byte_level = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let split = |regex: &str| {
        json!({
            "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
        })
    };
    let steps = match pre {
        "gpt-2" => vec![byte_level(true)],
        "smollm" => vec![
            json!({"type": "Digits", "individual_digits": true}),
            byte_level(true),
        ],
        "llama-bpe" => vec![split(bpe::WordRule::LLAMA_3), byte_level(false)],
        _ => vec![split(bpe::WordRule::QWEN_2), byte_level(false)],
    };
    let pre_tokenizer = match <[_; 1]>::try_from(steps) {
        Ok([step]) => step,
        Err(steps) => json!({"type": "Sequence", "pretokenizers": steps}),
    };
    let vocab: serde_json::Map<_, _> = (0..=u8::MAX)
        .map(|byte| (byte_level::char_of(byte).to_string(), byte.into()))
        .chain([
            ("ab".to_owned(), 256.into()),
            ("<s>".to_owned(), 257.into()),
        ])
        .collect();
    let added = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    json!({
        "version": "1.0",
        "added_tokens": [added(257, "<s>"), added(258, "</s>")],
        "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level(true),
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]},
    })
}

/// Sets a value and says whether the tokenizer is ours; its tokens are the library's anyway.
fn with(pre: &str, pointer: &str, value: serde_json::Value) -> bool {
    let mut json = tokenizer_json(pre);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
    let json = json.to_string();
    let tokenizer = Tokenizer::from_json(json.as_bytes()).unwrap();
    let oracle = HuggingFace::from_json(json.as_bytes()).unwrap();
    for text in ["", "ab  aB'S 12<s>é</s> e\u{301}\r\n", "ab <s> b"] {
        for add_special in [false, true] {
            assert_eq!(
                tokenizer.encode(text, add_special).unwrap(),
                oracle.encode(text, add_special).unwrap(),
                "{pointer} in {text:?}"
            );
        }
    }
    is_ours(&tokenizer)
}

#[test]
fn definitions_that_are_ours() {
    for pre in PRE {
        assert!(with(pre, "/version", json!("1.0")), "{pre}");
        assert!(with(pre, "/normalizer", json!({"type": "NFC"})), "{pre}");
    }
    assert!(with("gpt-2", "/model/merges", json!([["a", "b"]])));
    assert!(with(
        "gpt-2",
        "/model/merges",
        json!(["#version: 0.2", "a b"])
    ));
    assert!(with("llama-bpe", "/model/ignore_merges", json!(true)));
    assert!(with("gpt-2", "/model/unk_token", json!("<s>")));
    let template = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "b", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "e", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {
            "b": {"id": "b", "ids": [257, 97], "tokens": ["<s>", "a"]},
            "e": {"id": "e", "ids": [258], "tokens": ["</s>"]},
        },
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false});
    let both = json!({"type": "Sequence", "processors": [byte_level, template]});
    assert!(with("gpt-2", "/post_processor", template));
    assert!(with("gpt-2", "/post_processor", both));
}

#[test]
fn definitions_that_are_left_to_the_library() {
    for (pointer, value) in [
        ("/normalizer", json!({"type": "NFKC"})),
        ("/normalizer", json!({"type": "Lowercase"})),
        ("/pre_tokenizer/add_prefix_space", json!(true)),
        ("/pre_tokenizer/use_regex", json!(false)),
        ("/pre_tokenizer", json!(null)),
        ("/decoder", json!(null)),
        ("/model/continuing_subword_prefix", json!("#")),
        ("/model/byte_fallback", json!(true)),
        ("/added_tokens/0/rstrip", json!(true)),
        ("/added_tokens/0/lstrip", json!(true)),
        ("/added_tokens/0/single_word", json!(true)),
        ("/added_tokens/0/normalized", json!(true)),
        ("/added_tokens/1/id", json!(300)),
        (
            "/truncation",
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}),
        ),
    ] {
        assert!(!with("gpt-2", pointer, value.clone()), "{pointer} {value}");
    }
    assert!(!with(
        "llama-bpe",
        "/pre_tokenizer/pretokenizers/0/behavior",
        json!("Removed")
    ));
    assert!(!with(
        "llama-bpe",
        "/pre_tokenizer/pretokenizers/0/pattern/Regex",
        json!("\\s+")
    ));
    assert!(!with(
        "smollm",
        "/pre_tokenizer/pretokenizers/0/individual_digits",
        json!(false)
    ));
}
