//! The same vocabulary in Hugging Face's `tokenizers`, from a `tokenizer.json` as models publish it.

use forebay_chat::GgufVocabulary;
use serde_json::{Value, json};

/// The pre-tokenizers that GGUF names, each with what its models publish: normalizer,
/// pre-tokenizer, and whether a word in the vocabulary is that token.
pub(crate) const PRE: [&str; 4] = ["gpt-2", "smollm", "llama-bpe", "qwen2"];

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The `tokenizer.json` of a vocabulary with one of the pre-tokenizers.
pub(crate) fn tokenizer_json(vocabulary: &GgufVocabulary, pre: &str) -> Value {
    let byte_level = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let sequence = |first| json!({"type": "Sequence", "pretokenizers": first});
    let split = |regex: &str| {
        json!({
            "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
        })
    };
    let digits = json!({"type": "Digits", "individual_digits": true});
    let pre_tokenizer = match pre {
        "gpt-2" => byte_level(true),
        "smollm" => sequence([digits, byte_level(true)]),
        "llama-bpe" => sequence([split(LLAMA_3), byte_level(false)]),
        "qwen2" => sequence([split(QWEN_2), byte_level(false)]),
        other => panic!("no pre-tokenizer {other}"),
    };
    let bos = vocabulary.bos.unwrap();
    let bos_token = &vocabulary.tokens[bos as usize];
    let template = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": bos_token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos_token: {"id": bos_token, "ids": [bos], "tokens": [bos_token]}},
    });
    let added: Vec<_> = (0..)
        .zip(&vocabulary.tokens)
        .zip(&vocabulary.token_types)
        .filter(|(_, kind)| matches!(kind, 2..=4))
        .map(|((id, content), kind): ((u32, _), _)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": *kind != 4,
            })
        })
        .collect();
    let unk = vocabulary.unk.map(|unk| &vocabulary.tokens[unk as usize]);
    let vocab: serde_json::Map<_, _> = (0..)
        .zip(&vocabulary.tokens)
        .map(|(id, token): (u32, _)| (token.clone(), id.into()))
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": (pre == "qwen2").then(|| json!({"type": "NFC"})),
        "pre_tokenizer": pre_tokenizer,
        "post_processor": (pre == "llama-bpe").then_some(template),
        "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre == "llama-bpe", "vocab": vocab, "merges": vocabulary.merges,
        },
    })
}
