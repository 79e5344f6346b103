use forebay_engine::remote::{ArtefactDigest, Artefacts};
use forebay_protocols::worker::{GgufVocabulary, artefact::Content};

/// A model's tokenizer and chat template, as its workers give them to who asks.
pub(super) struct Text {
    pub(super) artefacts: Artefacts,
    pub(super) tokenizer: Option<ArtefactDigest>,
    pub(super) template: Option<ArtefactDigest>,
}

impl Text {
    fn new(vocabulary: GgufVocabulary, template: Option<String>) -> Self {
        let mut artefacts = Artefacts::new();
        // A file without a tokenizer has nothing here.
        let has_tokenizer = !vocabulary.tokens.is_empty();
        Self {
            tokenizer: has_tokenizer.then(|| artefacts.insert(Content::GgufVocabulary(vocabulary))),
            template: template.map(|template| artefacts.insert(Content::Template(template))),
            artefacts,
        }
    }

    /// Those that a model's file brings.
    #[cfg(feature = "native")]
    pub(super) fn of_file(metadata: &forebay_native_engine::GgufMetadata) -> Self {
        let tokenizer = metadata.tokenizer.clone();
        let vocabulary = GgufVocabulary {
            model: tokenizer.model,
            pre: tokenizer.pre.unwrap_or_default(),
            tokens: tokenizer.tokens,
            merges: tokenizer.merges,
            token_types: tokenizer.token_types,
            bos: tokenizer.bos,
            eos: tokenizer.eos,
            unknown: tokenizer.unknown,
            add_bos: tokenizer.add_bos,
        };
        Self::new(vocabulary, tokenizer.chat_template)
    }

    /// Those of the mocker's own vocabulary.
    #[cfg(feature = "mocker")]
    pub(super) fn of_mocker() -> Self {
        let vocabulary = forebay_mocker::vocabulary();
        let template = vocabulary.chat_template.to_owned();
        let vocabulary = GgufVocabulary {
            model: vocabulary.model.into(),
            pre: vocabulary.pre.into(),
            tokens: vocabulary.tokens,
            merges: vocabulary.merges,
            token_types: vocabulary.token_types,
            bos: None,
            eos: Some(vocabulary.eos),
            unknown: None,
            add_bos: Some(false),
        };
        Self::new(vocabulary, Some(template))
    }
}
