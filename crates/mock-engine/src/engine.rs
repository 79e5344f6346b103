use std::sync::Arc;

use forebay_engine::{
    Capabilities, Control, Engine, EngineInfo, Error, GenerateRequest, GenerateStream,
    KvEventStream, Load,
};
use forebay_mocker::{ConfigError, Fault, Mocker, MockerConfig};
use forebay_runtime::{TaskHandle, TaskKind, Tasks};
use forebay_tokens::{ContentKey, RequestId};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt};

use crate::shared::Shared;

/// What the engine can do; its requests are held to it.
const CAPABILITIES: Capabilities = Capabilities::GENERATE
    .union(Capabilities::PREFIX_CACHE)
    .union(Capabilities::KV_EVENTS)
    .union(Capabilities::EXACT)
    .union(Capabilities::PAUSE)
    .union(Capabilities::STOP);

/// A [`Mocker`] in real time.
///
/// One task, spawned through [`Tasks`], steps it when an iteration is due; without work it sleeps.
/// Iterations have absolute ends, so what a timer is late does not add up. Iterations that take no
/// time run many at once, and their outputs are handed over together.
///
/// Dropping the engine stops the task; streams that still run end with `Unavailable`. After
/// [`Fault::Crash`] it answers `Unavailable` to everything, and the task waits to be stopped.
pub struct MockEngine {
    info: EngineInfo,
    shared: Arc<Shared>,
    task: TaskHandle,
}

impl MockEngine {
    /// Starts an engine. Its model is called `model`, its KV blocks are named under `content_key`,
    /// and `instance` says which of the settings' faults it has.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the settings do not work.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(
        model: impl Into<String>,
        config: &MockerConfig,
        instance: u32,
        content_key: ContentKey,
        tasks: &Tasks,
    ) -> Result<Self, ConfigError> {
        let now = std::time::Duration::ZERO;
        let mocker = Mocker::new(config, instance, content_key, now)?;
        let info = info(model.into(), config, &mocker);
        let shared = Arc::new(Shared::new(mocker));
        let running = shared.clone();
        let task = tasks.spawn_cooperative(TaskKind::Critical, "mock_engine", |cancel| {
            running.run(cancel)
        });
        Ok(Self { info, shared, task })
    }

    /// Makes something go wrong now.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Fault`] for numbers that cannot be.
    pub fn inject(&self, fault: Fault) -> Result<(), ConfigError> {
        self.shared.inject(fault)
    }

    /// Stops the engine and waits until its task has ended. Streams that still run end with
    /// `Unavailable`.
    pub async fn stop(mut self) {
        self.task.cancel();
        self.task.ended().await;
    }
}

impl Drop for MockEngine {
    fn drop(&mut self) {
        self.task.cancel();
    }
}

impl Engine for MockEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let stream = CAPABILITIES
            .check(&request)
            .and_then(|()| self.shared.generate(request));
        std::future::ready(stream.map(StreamExt::boxed)).boxed()
    }

    fn abort(&self, request: &RequestId) {
        self.shared.abort(request);
    }

    fn stop(&self, request: &RequestId, choice: u32) {
        self.shared.stop(request, choice);
    }

    fn load(&self) -> Load {
        self.shared.load()
    }

    fn kv_events(&self) -> Result<KvEventStream, Error> {
        let subscription = self.shared.subscribe()?;
        Ok(subscription.into_stream())
    }

    fn control(&self, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        std::future::ready(self.shared.control(control)).boxed()
    }
}

impl std::fmt::Debug for MockEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockEngine")
            .field("info", &self.info)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

fn info(model: String, config: &MockerConfig, mocker: &Mocker) -> EngineInfo {
    let small = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    EngineInfo {
        model,
        capabilities: CAPABILITIES,
        context_length: small(mocker.context_length()),
        vocabulary_size: config.token_count(),
        block_size: mocker.limits().block_size,
        kv_blocks: config.kv_blocks,
        eos_token_ids: config.eos().into_iter().collect(),
        data_parallel_ranks: 1,
    }
}
