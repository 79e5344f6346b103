//! `forebay model`: what is in the cache, and how it gets there.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use forebay_model_store::{
    ModelDetails, ModelRef, PulledModel, Store, StoreConfig, TerminalProgress, catalog,
};
use forebay_runtime::{Signal, signals};
use futures::{Stream, StreamExt as _};

use crate::args::ModelCommand;

/// The store in this directory, or in the user's cache; pip's own progress is shown.
pub(crate) fn store(cache_dir: Option<PathBuf>) -> Result<Store> {
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
pub(crate) async fn pull(
    store: Store,
    model: ModelRef,
    signals: &mut (impl Stream<Item = Signal> + Unpin),
) -> Result<PulledModel> {
    let cancel = Arc::new(AtomicBool::new(false));
    let pulling = {
        let cancel = cancel.clone();
        let progress = TerminalProgress::new();
        tokio::task::spawn_blocking(move || store.pull(&model, &progress, &cancel))
    };
    tokio::pin!(pulling);
    let mut interrupted = None;
    loop {
        tokio::select! {
            pulled = &mut pulling => {
                let pulled = pulled.context("the pull broke off")?;
                return match interrupted {
                    Some(signal) => Err(Interrupted(signal).into()),
                    None => pulled.map_err(with_diagnostic),
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

/// A signal ended what was going on.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted(pub(crate) Signal);

fn with_diagnostic(error: forebay_model_store::Error) -> anyhow::Error {
    match error.diagnostic().map(str::to_owned) {
        Some(diagnostic) => anyhow::Error::new(error).context(format!("it said:\n{diagnostic}")),
        None => anyhow::Error::new(error),
    }
}

/// Carries out a subcommand and returns what it prints.
pub(crate) async fn run(command: ModelCommand) -> Result<String> {
    match command {
        ModelCommand::Pull { model, cache } => {
            let store = store(cache.cache_dir)?;
            let pulled = pull(store, ModelRef::parse(&model)?, &mut signals()?).await?;
            Ok(format!("{}\n", pulled.path.display()))
        }
        ModelCommand::List { cache } => Ok(list(&store(cache.cache_dir)?.list()?)),
        ModelCommand::Show { model, cache } => {
            let details = store(cache.cache_dir)?.show(&ModelRef::parse(&model)?)?;
            Ok(show(&details))
        }
    }
}

fn list(cached: &[PulledModel]) -> String {
    let mut rows: Vec<(&str, String, String)> = cached
        .iter()
        .map(|model| {
            let path = model.path.display().to_string();
            (&*model.name, megabytes(model.size_bytes), path)
        })
        .collect();
    let absent = catalog::MODELS
        .iter()
        .filter(|known| cached.iter().all(|model| model.name != known.name));
    rows.extend(absent.map(|known| {
        let size = megabytes(known.pin.size_bytes);
        (known.name, size, "not fetched yet".to_owned())
    }));
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    rows.iter()
        .fold(String::new(), |mut text, (name, size, place)| {
            writeln!(text, "{name:width$}  {size:>9}  {place}").expect("a String takes every line");
            text
        })
}

fn show(details: &ModelDetails) -> String {
    let unknown = || "unknown".to_owned();
    let path = details.path.as_deref();
    let aliases = match details.aliases {
        [] => "none".to_owned(),
        aliases => aliases.join(", "),
    };
    let lines = [
        ("name", details.name.clone()),
        ("aliases", aliases),
        ("source", details.origin.clone()),
        (
            "licence",
            details.licence.map_or_else(unknown, str::to_owned),
        ),
        (
            "size",
            details
                .size_bytes
                .map_or_else(unknown, |bytes| format!("{bytes} bytes")),
        ),
        (
            "sha256",
            details
                .sha256
                .map_or_else(unknown, |digest| digest.to_string()),
        ),
        (
            "path",
            path.map_or_else(
                || "not fetched yet".into(),
                |path| path.display().to_string(),
            ),
        ),
    ];
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name:8} {value}").expect("a String takes every line");
        text
    })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
