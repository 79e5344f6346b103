//! The engine behind the [`Engine`] trait: a thread that steps, and handles to it.

mod step_loop;

use std::path::Path;
use std::sync::Arc;

use forebay_engine::host::LiveStreams;
use forebay_engine::{
    Control, Engine, EngineInfo, Error, ErrorClass, GenerateRequest, GenerateStream, KvEventStream,
    Load,
};
use forebay_observability::Registry;
use forebay_runtime::{TaskHandle, TaskKind, Tasks};
use forebay_tokens::{ContentKey, RequestId, TokenId};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::config::EngineConfig;
use crate::engine_core::{CAPABILITIES, EngineCore, KvBlock};
use crate::error::StartError;
use crate::metrics::Metrics;
use crate::model::{GgufMetadata, Model};
use step_loop::{Command, StepLoop};

/// Commands that wait for the engine's thread; who sends more waits for the end of a step.
const COMMANDS: usize = 64;

/// A llama-family model on the CPU.
///
/// One thread, spawned through [`Tasks`], owns the [`EngineCore`] and steps it while there is work;
/// without work it sleeps. Callers talk to it through a bounded channel of commands.
///
/// Tokens take another way. A stream holds one [`GenerateOutput`](forebay_engine::GenerateOutput):
/// what its consumer has not taken yet is extended by what comes next, so a slow consumer gets
/// more tokens at once. The thread never waits for a consumer, and a stream never holds more than
/// the tokens of its choice.
///
/// Dropping the engine stops the thread; streams that still run end with `Unavailable`. If the
/// thread panics they end with `Internal`, and everything after that is `Unavailable`.
pub struct NativeEngine {
    info: EngineInfo,
    model: Arc<Model>,
    commands: mpsc::Sender<Command>,
    streams: LiveStreams,
    load: Arc<Mutex<Load>>,
    task: TaskHandle,
}

impl NativeEngine {
    /// Loads a GGUF file and starts an engine for it. Takes a second or so for every few hundred
    /// megabytes: in async code, call it through [`Tasks::run_blocking`].
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn load(
        config: &EngineConfig,
        path: &Path,
        tasks: &Tasks,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        Self::start(config, Arc::new(Model::load(path)?), tasks, registry)
    }

    /// Starts an engine for a model. Its metrics, `forebay_engine_*`, go to `registry`.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(
        config: &EngineConfig,
        model: Arc<Model>,
        tasks: &Tasks,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let content_key = match &config.content_key {
            Some(key) => key.clone(),
            None => random_key()?,
        };
        let core = EngineCore::new(config, model, content_key)?;
        Self::start_core(config.model_name.clone(), core, tasks, registry)
    }

    fn start_core(
        model_name: Option<String>,
        core: EngineCore,
        tasks: &Tasks,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let model = core.model().clone();
        let info = info(model_name, &core);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        // Weak: who can ask the engine for something is who has its handle.
        let wake = commands.downgrade();
        let streams = LiveStreams::new(move || step_loop::wake(&wake));
        let load = Arc::new(Mutex::new(core.load()));
        let step_loop = StepLoop::new(
            core,
            receiver,
            streams.clone(),
            load.clone(),
            Metrics::new(registry),
        );
        let task = tasks
            .spawn_thread(TaskKind::Critical, "engine", |cancel| {
                step_loop.run(&cancel)
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            info,
            model,
            commands,
            streams,
            load,
            task,
        })
    }

    /// What the model's file says beside weights: the tokenizer, the chat template.
    pub fn metadata(&self) -> &GgufMetadata {
        self.model.metadata()
    }

    /// Stops the engine and waits until its thread has ended. Streams that still run end with
    /// `Unavailable`.
    pub async fn stop(mut self) {
        self.task.cancel();
        self.task.ended().await;
    }

    /// Copies of the cached KV blocks of the longest cached prefix of `tokens`; see
    /// [`EngineCore::export_prefix`].
    ///
    /// # Errors
    ///
    /// `Unavailable` if the engine has stopped.
    pub async fn export_prefix(
        &self,
        tokens: Vec<TokenId>,
        cache_salt: String,
    ) -> Result<Vec<KvBlock>, Error> {
        self.ask(|reply| Command::Export {
            tokens,
            cache_salt,
            reply,
        })
        .await
    }

    /// Puts exported KV blocks of the first tokens into the cache, and gives how many were not
    /// there yet; see [`EngineCore::import_prefix`].
    ///
    /// # Errors
    ///
    /// As [`EngineCore::import_prefix`], or `Unavailable` if the engine has stopped.
    pub async fn import_prefix(
        &self,
        tokens: Vec<TokenId>,
        cache_salt: String,
        blocks: Vec<KvBlock>,
    ) -> Result<usize, Error> {
        self.ask(|reply| Command::Import {
            tokens,
            cache_salt,
            blocks,
            reply,
        })
        .await?
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        ask(&self.commands, command).await
    }
}

impl Drop for NativeEngine {
    fn drop(&mut self) {
        self.task.cancel();
    }
}

impl Engine for NativeEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let (writer, stream) = self.streams.open(&request.request_id, request.choice_index);
        async move {
            // Dropping this future drops the stream, and with it the request.
            let accepted = self.ask(|reply| Command::Generate {
                request: Box::new(request),
                writer,
                reply,
            });
            accepted.await??;
            Ok(stream.boxed())
        }
        .boxed()
    }

    fn abort(&self, request: &RequestId) {
        self.streams.abort(request.as_str());
    }

    fn stop(&self, request: &RequestId, choice: u32) {
        self.streams.stop(request.as_str(), choice);
    }

    fn load(&self) -> Load {
        *self.load.lock()
    }

    /// The subscription is made when the stream is first polled.
    fn kv_events(&self) -> Result<KvEventStream, Error> {
        let commands = self.commands.clone();
        let subscribe = async move {
            match ask(&commands, Command::Subscribe).await {
                Ok(subscription) => subscription.into_stream(),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            }
        };
        Ok(subscribe.flatten_stream().boxed())
    }

    fn control(&self, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            self.ask(|reply| Command::Control { control, reply })
                .await?
        }
        .boxed()
    }
}

impl std::fmt::Debug for NativeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeEngine")
            .field("info", &self.info)
            .field("load", &*self.load.lock())
            .finish_non_exhaustive()
    }
}

/// Sends a command to the engine's thread and waits for its answer.
async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Error> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_| stopped())?;
    answer.await.map_err(|_| stopped())
}

fn stopped() -> Error {
    let message = "the engine has stopped";
    Error::new(ErrorClass::Unavailable, "engine_stopped", message)
}

fn random_key() -> Result<ContentKey, StartError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(ContentKey::new(key))
}

fn info(model_name: Option<String>, core: &EngineCore) -> EngineInfo {
    let (metadata, shape) = (core.model().metadata(), core.model().shape());
    let small = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    EngineInfo {
        model: model_name
            .or_else(|| metadata.name.clone())
            .unwrap_or_else(|| "model".to_owned()),
        capabilities: CAPABILITIES,
        context_length: small(core.context_length()),
        vocabulary_size: small(shape.vocabulary),
        block_size: core.block_size(),
        kv_blocks: small(core.kv_blocks()),
        eos_token_ids: metadata.tokenizer.eos.into_iter().collect(),
        data_parallel_ranks: 1,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
