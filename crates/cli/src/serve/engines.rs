//! The engines that answer, of either kind.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use forebay_engine::Engine;
use forebay_frontend::Process;
use forebay_mock_engine::{MockEngine, MockerConfig};
use forebay_native_engine::{EngineConfig, GgufMetadata, Model, NativeEngine};
use forebay_tokens::ContentKey;
use tokio_util::sync::CancellationToken;

use super::text::Text;

/// Engines that share one model, and its text.
pub(super) struct Engines {
    pub(super) text: Text,
    /// At least one.
    pub(super) engines: Vec<Arc<dyn Engine>>,
}

impl Engines {
    /// Native engines over one copy of a model's weights. They share the threads and the KV memory
    /// of the settings evenly; what is wrong with the text costs neither.
    pub(super) fn native(
        count: NonZeroUsize,
        path: &Path,
        config: &EngineConfig,
        process: &Process,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let model = Model::load(path).with_context(|| cannot_load(path))?;
        let model = Arc::new(model);
        let text = Text::of_file(model.metadata())?;
        let config = share(config, count);
        let start = |_| -> Result<Arc<dyn Engine>> {
            go_on(cancel)?;
            let (tasks, metrics) = (&process.tasks, &process.metrics);
            let engine = NativeEngine::start(&config, model.clone(), tasks, metrics)?;
            Ok(Arc::new(engine))
        };
        Ok(Self {
            text,
            engines: (0..count.get()).map(start).collect::<Result<_>>()?,
        })
    }

    /// Mockers that speak in the tokens of a model's file, or else in their own.
    pub(super) fn mockers(
        name: &str,
        count: NonZeroUsize,
        path: Option<&Path>,
        config: &MockerConfig,
        process: &Process,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let mut config = config.clone();
        let text = match path {
            Some(path) => {
                let metadata = GgufMetadata::read(path).with_context(|| cannot_load(path))?;
                let text = Text::of_file(&metadata)?;
                config.vocabulary_size = Some(u32::try_from(text.tokenizer.vocab_size())?);
                text
            }
            None => Text::of_mocker()?,
        };
        // Mockers have no KV that a name could give away.
        let key = ContentKey::new([0; 32]);
        // Numbered as their workers are.
        let start = |instance| -> Result<Arc<dyn Engine>> {
            go_on(cancel)?;
            let instance = u32::try_from(instance)?;
            let engine = MockEngine::start(name, &config, instance, key.clone(), &process.tasks)?;
            Ok(Arc::new(engine))
        };
        Ok(Self {
            text,
            engines: (1..=count.get()).map(start).collect::<Result<_>>()?,
        })
    }
}

/// Nobody waits any more for engines whose start was cancelled.
fn go_on(cancel: &CancellationToken) -> Result<()> {
    ensure!(!cancel.is_cancelled(), "the start was cancelled");
    Ok(())
}

fn cannot_load(path: &Path) -> String {
    format!("cannot load {}", path.display())
}

/// One engine's part of what is for all.
fn share(config: &EngineConfig, count: NonZeroUsize) -> EngineConfig {
    let available = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = config.threads.unwrap_or_else(available).get() / count;
    EngineConfig {
        threads: NonZeroUsize::new(threads.max(1)),
        kv_cache_bytes: config.kv_cache_bytes / count.get() as u64,
        ..config.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_observability::Registry;
    use forebay_runtime::{Health, Tasks};

    use super::*;

    #[tokio::test]
    async fn a_start_that_nobody_waits_for_ends() {
        let metrics = Registry::new();
        let process = Process {
            tasks: Tasks::new(&metrics),
            health: Health::new(),
            metrics,
        };
        let cancel = CancellationToken::new();
        cancel.cancel();
        let (count, config) = (NonZeroUsize::MIN, MockerConfig::default());
        let started = Engines::mockers("m", count, None, &config, &process, &cancel);
        let error = started.err().unwrap();
        assert_eq!(error.to_string(), "the start was cancelled");
        assert!(process.tasks.running().is_empty());
    }

    #[test]
    fn engines_share_threads_and_memory() {
        let config = EngineConfig {
            threads: NonZeroUsize::new(5),
            kv_cache_bytes: 1000,
            ..EngineConfig::default()
        };
        for (count, threads, bytes) in [(1, 5, 1000), (2, 2, 500), (10, 1, 100)] {
            let part = share(&config, NonZeroUsize::new(count).unwrap());
            assert_eq!(part.threads.unwrap().get(), threads);
            assert_eq!(part.kv_cache_bytes, bytes);
        }
    }
}
