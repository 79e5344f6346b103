//! A frontend for one test.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_chat::{ChatTemplate, Tokenizer};
use forebay_engine::Engine;
use forebay_frontend::{
    Frontend, FrontendConfig, ModelRegistry, Process, SamplingDefaults, ServedModel, WorkerPool,
};
use forebay_observability::Registry;
use forebay_runtime::{Health, Planes, Shutdown, ShutdownCause, ShutdownConfig, TaskKind, Tasks};
use futures::stream;

/// The deployment that a server follows.
pub(crate) const NAMESPACE: &str = "test";

/// Waits for what other tasks bring about.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    models: ModelRegistry,
}

impl Server {
    /// Serves the engine as `test` (and `org/test`), with a chat template, as `base` without,
    /// and as `tuned` with sampling defaults of its own.
    pub(crate) async fn start(engine: Arc<dyn Engine>) -> Self {
        Self::with_config(engine, FrontendConfig::default()).await
    }

    pub(crate) async fn with_config(engine: Arc<dyn Engine>, config: FrontendConfig) -> Self {
        let tokenizer = Tokenizer::bytes();
        let chat = ServedModel::new("test", tokenizer.clone(), engine.clone())
            .with_template(ChatTemplate::chatml())
            .with_alias("org/test");
        let base = ServedModel::new("base", tokenizer.clone(), engine.clone());
        let defaults = SamplingDefaults {
            temperature: Some(0.25),
            top_p: Some(0.5),
        };
        let tuned = ServedModel::new("tuned", tokenizer, engine)
            .with_sampling_defaults(defaults)
            .unwrap();
        Self::of([chat, base, tuned], config).await
    }

    /// Serves workers that come and go as `base`.
    pub(crate) async fn of_pool(pool: &WorkerPool, config: FrontendConfig) -> Self {
        let model = ServedModel::pooled("base", Tokenizer::bytes(), pool.clone());
        Self::of([model], config).await
    }

    /// Serves what the workers of a deployment serve.
    pub(crate) async fn following(planes: &Planes, config: FrontendConfig) -> Self {
        let server = Self::of([], config.clone()).await;
        let models = &server.models;
        let following = models.follow(planes, NAMESPACE, &config, &server.process);
        following.unwrap();
        server
    }

    async fn of(models: impl IntoIterator<Item = ServedModel>, config: FrontendConfig) -> Self {
        let models = ModelRegistry::new(models).unwrap();
        let metrics = Registry::new();
        let process = Process {
            tasks: Tasks::new(&metrics),
            health: Health::new(),
            metrics,
        };
        let config = FrontendConfig { port: 0, ..config };
        let frontend = Frontend::bind(&config, models.clone(), process.clone())
            .await
            .unwrap();
        let address = frontend.local_addr();
        process
            .tasks
            .spawn_cooperative(TaskKind::Critical, "frontend", |cancel| {
                frontend.run(cancel)
            });
        Self {
            address,
            process,
            models,
        }
    }

    /// Shuts it down without letting anything end by itself.
    pub(crate) async fn end(self) {
        let config = ShutdownConfig {
            grace_seconds: 0.0,
            ..ShutdownConfig::default()
        };
        let (tasks, health) = (&self.process.tasks, &self.process.health);
        tasks.begin_shutdown(ShutdownCause::Requested("test"));
        let shutdown = Shutdown::new(config);
        shutdown.run_with(tasks, health, stream::pending()).await;
    }

    /// Whether the metrics have this line.
    pub(crate) fn has_metric(&self, line: &str) -> bool {
        let text = self.process.metrics.encode();
        text.lines().any(|found| found == line)
    }

    /// Waits until the metrics have this line.
    pub(crate) async fn until_metric(&self, line: &str) {
        while !self.has_metric(line) {
            tokio::task::yield_now().await;
        }
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        let running = self.process.tasks.running();
        let connections = running.iter().filter(|task| task.name == "connection");
        connections.map(|task| task.count).sum()
    }
}
