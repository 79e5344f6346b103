use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use forebay_engine::Engine;
use forebay_engine::remote::WorkerCard;
use forebay_mock_engine::{MockEngine, MockerConfig};
use forebay_runtime::Tasks;
use forebay_tokens::ContentKey;
use tokio_util::sync::CancellationToken;

use super::artefacts::Text;
use super::error::Error;
use super::spec::Engines;

/// Mockers that speak in the tokens of a model's file, or else in their own. They are numbered
/// from 1, for faults.
pub(super) fn start(
    name: &str,
    count: NonZeroUsize,
    path: Option<&Path>,
    config: &MockerConfig,
    tasks: &Tasks,
    cancel: &CancellationToken,
) -> Result<Engines, Error> {
    let began = Instant::now();
    let mut config = config.clone();
    let text = match path {
        Some(path) => {
            let (text, tokens) = text_of_file(path)?;
            config.vocabulary_size = Some(tokens);
            text
        }
        None => Text::of_mocker(),
    };
    // Mockers have no KV that a name could give away.
    let key = ContentKey::new([0; 32]);
    let mut engines: Vec<Arc<dyn Engine>> = Vec::with_capacity(count.get());
    for instance in (1..).take(count.get()) {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let engine = MockEngine::start(name, &config, instance, key.clone(), tasks);
        engines.push(Arc::new(engine.map_err(Error::MockerStart)?));
    }
    let card = WorkerCard {
        // What a mocker answers depends on these alone.
        weights: format!("mocker:{}", config.answer_tokens),
        tokenizer: text.tokenizer,
        template: text.template,
        max_batch_tokens: u32::try_from(config.max_batch_tokens).ok(),
        max_running_sequences: u32::try_from(config.max_sequences).ok(),
        ..WorkerCard::new(name, engines[0].info().clone())
    };
    Ok(Engines {
        card,
        artefacts: Arc::new(text.artefacts),
        engines,
        load_time: began.elapsed(),
    })
}

/// The text of a model's file, and how many tokens it has.
#[cfg(feature = "native")]
fn text_of_file(path: &Path) -> Result<(Text, u32), Error> {
    use forebay_native_engine::{GgufMetadata, LoadError};

    let metadata = GgufMetadata::read(path).map_err(|source: LoadError| Error::Load {
        path: path.to_owned(),
        source,
    })?;
    let tokens = u32::try_from(metadata.tokenizer.tokens.len()).unwrap_or(u32::MAX);
    Ok((Text::of_file(&metadata), tokens))
}

#[cfg(not(feature = "native"))]
fn text_of_file(path: &Path) -> Result<(Text, u32), Error> {
    let path = path.to_owned();
    Err(Error::NotBuilt { path })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_observability::Registry;

    use super::*;

    fn start(count: usize, cancel: &CancellationToken, tasks: &Tasks) -> Result<Engines, Error> {
        let config = MockerConfig::default();
        let count = NonZeroUsize::new(count).unwrap();
        super::start("m", count, None, &config, tasks, cancel)
    }

    #[tokio::test]
    async fn a_start_that_nobody_waits_for_ends() {
        let tasks = Tasks::new(&Registry::new());
        let cancel = CancellationToken::new();
        cancel.cancel();
        let error = start(1, &cancel, &tasks).err().unwrap();
        assert_eq!(error.to_string(), "the start was cancelled");
        assert!(tasks.running().is_empty());
    }

    #[tokio::test]
    async fn all_mockers_are_of_one_pool() {
        let tasks = Tasks::new(&Registry::new());
        let engines = start(3, &CancellationToken::new(), &tasks).unwrap();
        let digest = engines.card.digest();
        assert!(engines.card.tokenizer.is_some() && engines.card.template.is_some());
        let cards: Vec<_> = engines.specs().map(|spec| spec.card).collect();
        assert_eq!(cards.len(), 3);
        assert!(cards.iter().all(|card| card.digest() == digest));
    }
}
