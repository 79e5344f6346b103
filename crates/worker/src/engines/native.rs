use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use forebay_engine::Engine;
use forebay_engine::remote::WorkerCard;
use forebay_native_engine::{EngineConfig, Model, NativeEngine};
use forebay_observability::Registry;
use forebay_runtime::Tasks;
use tokio_util::sync::CancellationToken;

use super::artefacts::Text;
use super::error::Error;
use super::spec::Engines;

/// Native engines over one copy of a model's weights. They share the threads and the KV memory of
/// the settings evenly.
pub(super) fn start(
    name: &str,
    count: NonZeroUsize,
    path: &Path,
    config: &EngineConfig,
    (tasks, metrics): (&Tasks, &Registry),
    cancel: &CancellationToken,
) -> Result<Engines, Error> {
    let began = Instant::now();
    let model = Model::load(path).map_err(|source| Error::Load {
        path: path.to_owned(),
        source,
    })?;
    let model = Arc::new(model);
    let text = Text::of_file(model.metadata());
    let config = share(config, count);
    let mut engines: Vec<Arc<dyn Engine>> = Vec::with_capacity(count.get());
    for _ in 0..count.get() {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let engine = NativeEngine::start(&config, model.clone(), tasks, metrics);
        engines.push(Arc::new(engine.map_err(Error::NativeStart)?));
    }
    let info = engines[0].info().clone();
    let fingerprint = model.kv_fingerprint(&model.kv_layout(info.block_size));
    let card = WorkerCard {
        // More than the weights: the arithmetic, too, decides answers and KV.
        weights: format!("native:{}", hexadecimal(&fingerprint)),
        tokenizer: text.tokenizer,
        template: text.template,
        max_batch_tokens: u32::try_from(config.max_batch_tokens).ok(),
        max_running_sequences: u32::try_from(config.max_sequences).ok(),
        ..WorkerCard::new(name, info)
    };
    Ok(Engines {
        card,
        artefacts: Arc::new(text.artefacts),
        engines,
        load_time: began.elapsed(),
    })
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

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every digit");
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
