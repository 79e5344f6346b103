use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_model_store::{ModelRef, PulledModel, Store, StoreConfig, TerminalProgress};
use forebay_runtime::{Signal, Tasks};
use futures::{Stream, StreamExt as _};

use super::error::Error;

/// The store in this directory, or in the user's cache; pip's own progress is shown.
///
/// # Errors
///
/// [`Error::Model`], if the user has no cache directory.
pub fn store(cache_dir: Option<PathBuf>) -> Result<Store, Error> {
    let mut config = StoreConfig::from_env().or_else(|error| match &cache_dir {
        Some(dir) => Ok(StoreConfig::new(dir)),
        None => Err(error),
    })?;
    if let Some(dir) = cache_dir {
        config.cache_dir = dir;
    }
    config.pip.show_output = true;
    Ok(Store::new(config))
}

/// Fetches a model if it is not there, with bars on a terminal. The first signal ends it and leaves
/// no half file; a second one leaves the process at once.
///
/// # Errors
///
/// [`Error::Model`] or [`Error::Said`], if it cannot be had; [`Error::Interrupted`].
pub async fn pull(
    store: Store,
    model: ModelRef,
    tasks: &Tasks,
    signals: &mut (impl Stream<Item = Signal> + Unpin),
) -> Result<PulledModel, Error> {
    let cancel = Arc::new(AtomicBool::new(false));
    let cancelled = cancel.clone();
    let progress = TerminalProgress::new();
    let pulling = tasks.run_blocking("pull model", move || {
        store.pull(&model, &progress, &cancelled)
    });
    tokio::pin!(pulling);
    let mut interrupted = None;
    loop {
        tokio::select! {
            pulled = &mut pulling => {
                return match interrupted {
                    Some(signal) => Err(Error::Interrupted(signal)),
                    None => pulled?.map_err(with_diagnostic),
                };
            }
            Some(signal) = signals.next() => {
                cancel.store(true, Ordering::Relaxed);
                if interrupted.replace(signal).is_some() {
                    std::process::exit(signal.exit_code().into());
                }
            }
        }
    }
}

fn with_diagnostic(source: forebay_model_store::Error) -> Error {
    match source.diagnostic().map(str::to_owned) {
        Some(diagnostic) => Error::Said { diagnostic, source },
        None => Error::Model(source),
    }
}
