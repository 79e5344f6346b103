use std::collections::HashMap;

use forebay_chat::{ChatTemplate, GgufVocabulary, Tokenizer};
use forebay_engine::remote::{ArtefactDigest, RemoteEngine, WorkerCard};
use forebay_engine::{Error, ErrorClass};
use forebay_observability::ErrorChain;
use forebay_protocols::worker::artefact::Content;
use forebay_runtime::Tasks;

/// How a model's text becomes tokens, and the other way around.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
}

/// Why a model's text is not to be had.
#[derive(Debug)]
pub(super) enum TextFailure {
    /// The worker could not be asked: another time it may.
    Unreachable(Error),
    /// The worker does not give what its card names: another one of its pool may.
    Worker(Error),
    /// What the card names cannot be used, whoever gives it.
    Unusable(String),
}

/// What was made of artefacts, by their digests: versions of a model mostly have them in common.
#[derive(Default)]
pub(super) struct Texts {
    tokenizers: HashMap<ArtefactDigest, Tokenizer>,
    templates: HashMap<ArtefactDigest, ChatTemplate>,
}

impl Texts {
    /// What is known of a card's text.
    pub(super) fn of(&self, card: &WorkerCard) -> KnownText {
        let tokenizer = card.tokenizer.as_ref();
        let template = card.template.as_ref();
        KnownText {
            tokenizer: tokenizer.and_then(|digest| self.tokenizers.get(digest).cloned()),
            template: template.and_then(|digest| self.templates.get(digest).cloned()),
        }
    }

    /// Keeps a card's text for others.
    pub(super) fn keep(&mut self, card: &WorkerCard, text: &Text) {
        if let Some(digest) = card.tokenizer {
            self.tokenizers.insert(digest, text.tokenizer.clone());
        }
        if let (Some(digest), Some(template)) = (card.template, &text.template) {
            self.templates.insert(digest, template.clone());
        }
    }

    /// Forgets what none of these cards names.
    pub(super) fn retain<'a>(&mut self, cards: impl Iterator<Item = &'a WorkerCard> + Clone) {
        let tokenizers: Vec<_> = cards.clone().filter_map(|card| card.tokenizer).collect();
        let templates: Vec<_> = cards.filter_map(|card| card.template).collect();
        self.tokenizers
            .retain(|digest, _| tokenizers.contains(digest));
        self.templates
            .retain(|digest, _| templates.contains(digest));
    }
}

/// The parts of a text that need not be fetched.
#[derive(Default)]
pub(super) struct KnownText {
    tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
}

impl KnownText {
    /// The whole text: a worker is asked for what is not known, and it is built off the async
    /// threads.
    pub(super) async fn complete(
        self,
        engine: &RemoteEngine,
        tasks: &Tasks,
    ) -> Result<Text, TextFailure> {
        let card = engine.card();
        let tokenizer = match (self.tokenizer, card.tokenizer) {
            (Some(known), _) => known,
            (None, Some(digest)) => {
                let content = fetch(engine, digest).await?;
                built(tasks, || tokenizer_of(content)).await?
            }
            (None, None) => {
                let reason = "its workers name no tokenizer";
                return Err(TextFailure::Unusable(reason.to_owned()));
            }
        };
        let template = match (self.template, card.template) {
            (None, Some(digest)) => {
                let content = fetch(engine, digest).await?;
                Some(built(tasks, || template_of(content)).await?)
            }
            (known, _) => known,
        };
        Ok(Text {
            tokenizer,
            template,
        })
    }
}

async fn fetch(engine: &RemoteEngine, digest: ArtefactDigest) -> Result<Content, TextFailure> {
    let fetched = engine.artefact(digest).await;
    fetched.map_err(|error| match error.class {
        ErrorClass::NotFound | ErrorClass::BackendProtocol | ErrorClass::Unsupported => {
            TextFailure::Worker(error)
        }
        _ => TextFailure::Unreachable(error),
    })
}

async fn built<T: Send + 'static>(
    tasks: &Tasks,
    build: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, TextFailure> {
    let built = tasks.run_blocking("build text", build).await;
    match built {
        Ok(built) => built.map_err(TextFailure::Unusable),
        Err(error) => Err(TextFailure::Unusable(error.to_string())),
    }
}

fn tokenizer_of(content: Content) -> Result<Tokenizer, String> {
    let tokenizer = match content {
        Content::GgufVocabulary(vocabulary) => Tokenizer::from_gguf(GgufVocabulary {
            model: vocabulary.model,
            pre: vocabulary.pre,
            tokens: vocabulary.tokens,
            merges: vocabulary.merges,
            token_types: vocabulary.token_types,
            bos: vocabulary.bos,
            eos: vocabulary.eos,
            unk: vocabulary.unknown,
            add_bos: vocabulary.add_bos,
        }),
        Content::TokenizerJson(file) => Tokenizer::from_json(&file.json)
            .map(|tokenizer| tokenizer.with_special(file.bos, file.eos)),
        Content::Template(_) => return Err("its tokenizer is a template".to_owned()),
    };
    tokenizer.map_err(|error| format!("its tokenizer cannot be used: {}", ErrorChain(&error)))
}

fn template_of(content: Content) -> Result<ChatTemplate, String> {
    let Content::Template(template) = content else {
        return Err("its template is a tokenizer".to_owned());
    };
    ChatTemplate::new(&template)
        .map_err(|error| format!("its template cannot be used: {}", ErrorChain(&error)))
}
