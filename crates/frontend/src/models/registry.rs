use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_protocols::openai::Model;
use forebay_protocols::{Error as RequestError, ErrorClass};
use futures::future::select_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use super::ServedModel;
use super::catalogue::{Catalogue, Clash, check_names};
use super::expected::Expected;
use crate::pool::PastCounts;
use crate::{Error, WorkerPool};

/// The models that a frontend serves, by name. They may come and go while it serves, by hand or,
/// with [`Self::follow`], as workers do. Cloning copies a pointer; a request takes no lock.
///
/// A name may have several versions at a time: see [`ServedModel::with_version`]. A new request
/// goes to one of them, by the weights of their workers that are ready.
#[derive(Clone, Default)]
pub struct ModelRegistry(Arc<Inner>);

#[derive(Default)]
struct Inner {
    now: ArcSwap<Catalogue>,
    /// A model is there before it is not expected any more: who looks here first misses none.
    expected: ArcSwap<Expected>,
    /// What there is to say of workers that cannot be reached.
    unreached: ArcSwap<Vec<String>>,
    /// Held while they change.
    history: Mutex<History>,
    /// Told of every change, also of what is expected and of what cannot be reached.
    changes: watch::Sender<usize>,
}

/// What there was.
#[derive(Default)]
struct History {
    /// The names that were told to be taken.
    clashes: HashSet<Clash>,
    /// What pools counted that are gone.
    counts: PastCounts,
}

impl ModelRegistry {
    /// A registry of these models.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyModelName`] or [`Error::DuplicateModelName`], aliases included.
    pub fn new(models: impl IntoIterator<Item = ServedModel>) -> Result<Self, Error> {
        let models: Vec<_> = models.into_iter().collect();
        check_names(&models)?;
        let registry = Self::default();
        registry.change(|known| known.extend(models.into_iter().map(Arc::new)));
        Ok(registry)
    }

    /// A registry that does not know yet which models there are: requests wait for any, until it
    /// [follows](Self::follow) a deployment and has seen who is there.
    pub fn pending() -> Self {
        let registry = Self::default();
        registry.expect(Expected {
            any: true,
            ..Expected::default()
        });
        registry
    }

    /// Adds a model, in place of the one of the same name and version if there is one: what runs
    /// there goes on. An alias that is another model's name, or the alias of one whose name comes
    /// first, does not find this one, which is logged.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyModelName`], aliases included.
    pub fn insert(&self, model: ServedModel) -> Result<(), Error> {
        if model.name().is_empty() || model.aliases().iter().any(String::is_empty) {
            return Err(Error::EmptyModelName);
        }
        self.change(|models| {
            models.retain(|known| !is(known, model.name(), model.version()));
            models.push(Arc::new(model));
        });
        Ok(())
    }

    /// Takes a version of a model away; what runs there goes on. Whether it was there.
    pub fn remove(&self, name: &str, version: Option<&str>) -> bool {
        self.change(|models| {
            let before = models.len();
            models.retain(|known| !is(known, name, version));
            models.len() < before
        })
    }

    /// The model of this name; of several versions the one for the next request.
    ///
    /// # Errors
    ///
    /// `NotFound`, reason `model_not_found`. It does not tell which models there are.
    pub fn get(&self, name: &str) -> Result<Arc<ServedModel>, RequestError> {
        let now = self.0.now.load();
        now.get(name).cloned().ok_or_else(|| not_found(name))
    }

    /// Waits until there is a model of this name. Cancel-safe.
    pub async fn appears(&self, name: &str) -> Arc<ServedModel> {
        let mut changes = self.changes();
        loop {
            if let Ok(model) = self.get(name) {
                return model;
            }
            let changed = changes.changed().await;
            changed.expect("the registry has the sender");
        }
    }

    /// Whether there is a model of this name, or may be one soon.
    pub(crate) fn may_have(&self, name: &str) -> bool {
        self.0.expected.load().has(name) || !self.0.now.load().versions(name).is_empty()
    }

    /// Waits until some version of the model of this name has a worker that takes requests; also for
    /// one that was there and goes meanwhile, as it may come again. Cancel-safe.
    ///
    /// # Errors
    ///
    /// `NotFound`, as [`Self::get`], once there is no such model, was none, and none is expected.
    pub(crate) async fn has_worker(&self, name: &str) -> Result<(), RequestError> {
        let mut was_there = false;
        self.until(name, |models| {
            was_there |= !models.is_empty();
            if !was_there && !self.may_have(name) {
                return Some(Err(not_found(name)));
            }
            let is_ready = |model: &Arc<ServedModel>| model.pool().ready_workers() > 0;
            models.iter().any(is_ready).then_some(Ok(()))
        })
        .await
    }

    /// A version of the model of this name that a new request might get and that has none of these
    /// pools, if there is one.
    pub(crate) fn other_version(
        &self,
        name: &str,
        than: &[WorkerPool],
    ) -> Option<Arc<ServedModel>> {
        self.0.now.load().other(name, than).cloned()
    }

    /// Waits for one. Cancel-safe.
    pub(crate) async fn another_version(
        &self,
        name: &str,
        than: &[WorkerPool],
    ) -> Arc<ServedModel> {
        self.until(name, |_| self.other_version(name, than)).await
    }

    /// Waits until `look` finds something in the versions of the model of this name: it looks with
    /// every change of models, and of the workers of these. Cancel-safe.
    async fn until<T>(
        &self,
        name: &str,
        mut look: impl FnMut(&[Arc<ServedModel>]) -> Option<T>,
    ) -> T {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let models = self.0.now.load().versions(name).to_vec();
            // What changes while it looks counts.
            let mut ready: Vec<_> = models.iter().map(|model| model.pool().ready()).collect();
            if let Some(found) = look(&models) {
                return found;
            }
            any_change(&mut ready, &mut changes).await;
        }
    }

    /// From now on these models are expected, and no others.
    pub(super) fn expect(&self, expected: Expected) {
        self.tell(&self.0.expected, expected);
    }

    /// From now on this is what there is to say of workers that are registered and cannot be
    /// reached.
    pub(super) fn lacks(&self, unreached: Vec<String>) {
        self.tell(&self.0.unreached, unreached);
    }

    fn tell<T: PartialEq>(&self, told: &ArcSwap<T>, now: T) {
        if **told.load() != now {
            told.store(Arc::new(now));
            self.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// What there is to say of workers that are registered and cannot be reached; empty if nothing.
    pub(crate) fn unreached(&self) -> Arc<Vec<String>> {
        self.0.unreached.load_full()
    }

    /// Every version of every model, in the order of their names.
    pub(crate) fn served(&self) -> Vec<Arc<ServedModel>> {
        self.0.now.load().models().to_vec()
    }

    /// The same, with what the pools of versions counted that are gone.
    pub(crate) fn served_and_past(&self) -> (Vec<Arc<ServedModel>>, PastCounts) {
        let history = self.0.history.lock();
        (self.served(), history.counts.clone())
    }

    /// Whether all their tokenizers are fast.
    pub(crate) fn is_fast(&self) -> bool {
        self.0.now.load().is_fast()
    }

    /// Every name, in order, with what the API tells about it.
    pub(crate) fn list(&self) -> Vec<Model> {
        self.0.now.load().list()
    }

    /// What the API tells about the model of this name.
    pub(crate) fn describe(&self, name: &str) -> Result<Model, RequestError> {
        let described = self.0.now.load().describe(name);
        described.ok_or_else(|| not_found(name))
    }

    /// Is told of every model that comes or goes, and of every change of what is expected and of
    /// what cannot be reached.
    pub(crate) fn changes(&self) -> watch::Receiver<usize> {
        self.0.changes.subscribe()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<ServedModel>>) -> T) -> T {
        let mut history = self.0.history.lock();
        let before = self.0.now.load_full();
        let mut models = before.models().to_vec();
        let result = change(&mut models);
        let (catalogue, clashes) = Catalogue::new(models, &before);
        let told = &history.clashes;
        for Clash { name, loser } in clashes.iter().filter(|clash| !told.contains(*clash)) {
            warn!(alias = name, model = loser, "alias taken by another model");
        }
        history.clashes = clashes.into_iter().collect();
        history.counts.changed(before.models(), catalogue.models());
        self.0.now.store(Arc::new(catalogue));
        self.0.changes.send_modify(|changes| *changes += 1);
        result
    }
}

/// Waits until workers of some models come or go, which `ready` tells, or models do.
pub(crate) async fn any_change(
    ready: &mut [watch::Receiver<usize>],
    changes: &mut watch::Receiver<usize>,
) {
    let waits = ready.iter_mut().chain([changes]);
    let waits = waits.map(|receiver| Box::pin(receiver.changed()));
    // The registry has the models, they have their pools, and those the senders.
    let _ = select_all(waits).await;
}

fn is(model: &ServedModel, name: &str, version: Option<&str>) -> bool {
    model.name() == name && model.version() == version
}

/// What a request ends with whose model there is not.
pub(crate) fn not_found(name: &str) -> RequestError {
    // A name from outside is shown, but not at any length.
    let shown: String = name.chars().take(128).collect();
    let message = format!("the model {shown:?} does not exist");
    RequestError::new(ErrorClass::NotFound, "model_not_found", message).with_param("model")
}

impl fmt::Debug for ModelRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.served()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_chat::Tokenizer;
    use forebay_router::RouterConfig;
    use futures::FutureExt as _;

    use super::*;
    use crate::sample;

    #[test]
    fn who_waits_for_a_model_that_was_there_goes_on_waiting() {
        let engine = sample::engine_info("m");
        let pool = WorkerPool::new(engine, &RouterConfig::default()).unwrap();
        let registry = ModelRegistry::default();
        let model = ServedModel::pooled("m", Tokenizer::bytes(), pool);
        registry.insert(model).unwrap();
        let mut waiting = Box::pin(registry.has_worker("m"));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(registry.remove("m", None));
        assert!(waiting.as_mut().now_or_never().is_none());
        let late = registry.has_worker("m").now_or_never().unwrap();
        assert_eq!(late.unwrap_err().class, ErrorClass::NotFound);
    }
}
