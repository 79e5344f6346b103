//! The mocker's built-in vocabulary, as the tokenizer of frontends reads it.
#![allow(clippy::unwrap_used)]

use forebay_chat::{ChatTemplate, GgufVocabulary, TemplateInput, Tokenizer};
use forebay_mocker::{MockerConfig, one_token_words};

fn tokenizer() -> Tokenizer {
    let vocabulary = forebay_mocker::vocabulary();
    let vocabulary = GgufVocabulary {
        model: vocabulary.model.into(),
        pre: vocabulary.pre.into(),
        tokens: vocabulary.tokens,
        merges: vocabulary.merges,
        token_types: vocabulary.token_types,
        bos: None,
        eos: Some(vocabulary.eos),
        unk: None,
        add_bos: Some(false),
    };
    Tokenizer::from_gguf(vocabulary).unwrap()
}

#[test]
fn its_words_are_one_token_each_and_come_back() {
    let tokenizer = tokenizer();
    let text: String = one_token_words().map(|word| format!(" {word}")).collect();
    let tokens = tokenizer.encode(&text, true).unwrap();
    let words = MockerConfig::default().answer_vocabulary();
    assert!(tokens.iter().copied().eq(words));
    assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text);
    let config = MockerConfig::default();
    assert_eq!(tokenizer.eos().first(), config.eos().as_ref());
    assert_eq!(tokenizer.vocab_size(), config.token_count() as usize);
}

#[test]
fn its_template_is_chatml() {
    let tokenizer = tokenizer();
    let template = ChatTemplate::new(forebay_mocker::vocabulary().chat_template).unwrap();
    let text = "<|im_start|>user\nba bo<|im_end|>\n<|im_start|>assistant\n";
    let tokens = tokenizer.encode(text, false).unwrap();
    assert_eq!(tokenizer.decode(&tokens, false).unwrap(), text);
    let controls = tokens.iter().filter(|token| tokenizer.is_special(**token));
    assert_eq!(controls.count(), 3);
    let messages = [serde_json::json!({"role": "user", "content": "ba bo"})];
    let input = TemplateInput {
        messages: &messages,
        add_generation_prompt: true,
        ..TemplateInput::default()
    };
    assert_eq!(template.render(&input).unwrap(), text);
}
