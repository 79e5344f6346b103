//! How a model's text becomes tokens.

use anyhow::{Context as _, Result};
use forebay_chat::{ChatTemplate, GgufVocabulary, Tokenizer};
use forebay_native_engine::GgufMetadata;

/// A model's tokenizer and its chat template, if it has one.
pub(super) struct Text {
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
}

impl Text {
    /// Those that a model's file brings.
    pub(super) fn of_file(metadata: &GgufMetadata) -> Result<Self> {
        let metadata = metadata.tokenizer.clone();
        let template = metadata.chat_template.as_deref().map(ChatTemplate::new);
        let vocabulary = GgufVocabulary {
            model: metadata.model,
            pre: metadata.pre.unwrap_or_default(),
            tokens: metadata.tokens,
            merges: metadata.merges,
            token_types: metadata.token_types,
            bos: metadata.bos,
            eos: metadata.eos,
            unk: metadata.unknown,
            add_bos: metadata.add_bos,
        };
        Ok(Self {
            template: template.transpose().context("its chat template")?,
            tokenizer: Tokenizer::from_gguf(vocabulary).context("its tokenizer")?,
        })
    }

    /// Those of the mocker's own vocabulary.
    pub(super) fn of_mocker() -> Result<Self> {
        let vocabulary = forebay_mocker::vocabulary();
        let template = ChatTemplate::new(vocabulary.chat_template)?;
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
        Ok(Self {
            tokenizer: Tokenizer::from_gguf(vocabulary)?,
            template: Some(template),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_chat::TemplateInput;
    use forebay_mocker::{MockerConfig, one_token_words};

    use super::*;

    #[test]
    fn the_mockers_words_are_one_token_each_and_come_back() {
        let Text { tokenizer, .. } = Text::of_mocker().unwrap();
        let text: String = one_token_words().map(|word| format!(" {word}")).collect();
        let tokens = tokenizer.encode(&text, true).unwrap();
        assert!(
            tokens
                .iter()
                .copied()
                .eq(MockerConfig::default().answer_vocabulary())
        );
        assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text);
        assert_eq!(
            tokenizer.eos().first(),
            MockerConfig::default().eos().as_ref()
        );
        assert_eq!(
            tokenizer.vocab_size(),
            MockerConfig::default().token_count() as usize
        );
    }

    #[test]
    fn the_mockers_template_is_chatml() {
        let Text {
            tokenizer,
            template,
        } = Text::of_mocker().unwrap();
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
        assert_eq!(template.unwrap().render(&input).unwrap(), text);
    }
}
