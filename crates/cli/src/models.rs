//! `forebay model`: what is in the cache, and how it gets there.

use std::fmt::Write as _;

use anyhow::Result;
use forebay_model_store::{ModelDetails, ModelRef, PulledModel, catalog};
use forebay_observability::Registry;
use forebay_runtime::{Signal, Tasks, signals};
use forebay_worker::engines::{self, pull, store};

use crate::args::ModelCommand;

/// A signal ended what was going on.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted(pub(crate) Signal);

impl Interrupted {
    /// Where engines end with an error of their own for it.
    pub(crate) fn or(error: engines::Error) -> anyhow::Error {
        match error {
            engines::Error::Interrupted(signal) => Self(signal).into(),
            error => error.into(),
        }
    }
}

/// Carries out a subcommand and returns what it prints.
pub(crate) async fn run(command: ModelCommand) -> Result<String> {
    match command {
        ModelCommand::Pull { model, cache } => {
            let store = store(cache.cache_dir)?;
            let tasks = Tasks::new(&Registry::new());
            let pulled = pull(store, ModelRef::parse(&model)?, &tasks, &mut signals()?).await;
            let pulled = pulled.map_err(Interrupted::or)?;
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
