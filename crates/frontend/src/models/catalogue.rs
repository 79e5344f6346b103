use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use forebay_protocols::openai::{Model, ModelVersion};

use super::ServedModel;
use super::versions::Versions;
use crate::{Error, WorkerPool};

/// The models at one moment, as requests look them up.
#[derive(Debug)]
pub(super) struct Catalogue {
    /// Each version of each model, in the order of their names.
    models: Vec<Arc<ServedModel>>,
    /// By every name there is, the versions of its model.
    by_name: BTreeMap<String, Arc<Versions>>,
    /// Whether all their tokenizers are fast.
    is_fast: bool,
}

/// A name that two models have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Clash {
    pub(super) name: String,
    /// The model that is not found under it.
    pub(super) loser: String,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            by_name: BTreeMap::new(),
            is_fast: true,
        }
    }
}

impl Catalogue {
    /// A catalogue of these models, which comes after another one. A model's own name is its own,
    /// whoever has it as an alias; an alias of several models is the first one's, in the order of
    /// their names. So it does not matter in which order they came.
    pub(super) fn new(mut models: Vec<Arc<ServedModel>>, before: &Self) -> (Self, Vec<Clash>) {
        models.sort_by(|a, b| (a.name(), a.version()).cmp(&(b.name(), b.version())));
        let own = models.chunk_by(|a, b| a.name() == b.name());
        let own: Vec<_> = own
            .map(|versions| {
                let name = versions[0].name();
                let before = before.by_name.get(name).map(|versions| &**versions);
                let versions = Versions::new(versions.to_vec(), before);
                (name.to_owned(), Arc::new(versions))
            })
            .collect();
        let mut by_name: BTreeMap<_, _> = own.iter().cloned().collect();
        let mut clashes = Vec::new();
        for (name, versions) in own {
            let models = versions.models().iter();
            let aliases = models.flat_map(|model| model.aliases());
            for alias in aliases.filter(|alias| **alias != name) {
                match by_name.entry(alias.clone()) {
                    Entry::Vacant(entry) => drop(entry.insert(versions.clone())),
                    Entry::Occupied(taken) if taken.get().models()[0].name() == name => {}
                    Entry::Occupied(_) => clashes.push(Clash {
                        name: alias.clone(),
                        loser: name.clone(),
                    }),
                }
            }
        }
        let is_fast = models.iter().all(|model| model.tokenizer().is_fast());
        let catalogue = Self {
            models,
            by_name,
            is_fast,
        };
        (catalogue, clashes)
    }

    /// Every version of every model.
    pub(super) fn models(&self) -> &[Arc<ServedModel>] {
        &self.models
    }

    pub(super) fn is_fast(&self) -> bool {
        self.is_fast
    }

    /// The version that a request gets which asks for this name: of several, each gets requests
    /// by the weights of its workers that take them.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<ServedModel>> {
        Some(self.by_name.get(name)?.next())
    }

    /// The same among those with other pools than these; `None` also if they have no share.
    pub(super) fn other(&self, name: &str, than: &[WorkerPool]) -> Option<&Arc<ServedModel>> {
        self.by_name.get(name)?.next_other(than)
    }

    /// The versions of the model of this name; none, if there is no such model.
    pub(super) fn versions(&self, name: &str) -> &[Arc<ServedModel>] {
        self.by_name.get(name).map_or(&[], |found| found.models())
    }

    /// Every name, in order, with what the API tells about it.
    pub(super) fn list(&self) -> Vec<Model> {
        let by_name = self.by_name.iter();
        by_name
            .map(|(name, versions)| describe(name, versions))
            .collect()
    }

    /// What the API tells about the model of this name.
    pub(super) fn describe(&self, name: &str) -> Option<Model> {
        Some(describe(name, self.by_name.get(name)?))
    }
}

fn describe(name: &str, versions: &Versions) -> Model {
    let (models, shares) = (versions.models(), versions.shares());
    let lengths = models.iter().map(|m| m.pool().model().context_length);
    let created = models.iter().map(|m| m.created_unix_seconds());
    let told = models.iter().zip(shares).filter_map(|(model, share)| {
        Some(ModelVersion {
            digest: model.version()?.to_owned(),
            ready_workers: u32::try_from(model.pool().ready_workers()).unwrap_or(u32::MAX),
            share,
        })
    });
    Model {
        id: name.to_owned(),
        object: "model".into(),
        created: created.min().unwrap_or_default(),
        owned_by: "forebay".to_owned(),
        // What fits whichever version a request gets.
        max_model_len: lengths.min(),
        versions: told.collect(),
    }
}

/// Refuses models without a name, and names that are not unique.
pub(super) fn check_names(models: &[ServedModel]) -> Result<(), Error> {
    let mut seen = BTreeMap::new();
    for model in models {
        let aliases = model.aliases().iter().map(|alias| &**alias);
        for name in std::iter::once(model.name()).chain(aliases) {
            if name.is_empty() {
                return Err(Error::EmptyModelName);
            }
            // Versions of one model have its names in common.
            let version_of = |other: &(&str, Option<&str>)| {
                other.0 == model.name() && model.version().is_some() && other.1 != model.version()
            };
            match seen.insert(name, (model.name(), model.version())) {
                Some(other) if !version_of(&other) => {
                    return Err(Error::DuplicateModelName(name.to_owned()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
