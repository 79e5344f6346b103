use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::Engine;
use forebay_engine::remote::{EngineHandler, WorkerCard, engine_endpoint};
use forebay_runtime::{Condition, Instance, Planes, Served, TaskHandle, TaskKind, Tasks};
use forebay_tokens::WorkerId;
use tokio::time::timeout;

use crate::config::WorkerConfig;
use crate::error::StartError;
use crate::supervisor::Supervisor;

/// What a worker is.
pub struct WorkerSpec {
    /// Who it is: no other worker of the deployment has this id, nor has had it before.
    pub id: WorkerId,
    /// The name under which its model is served.
    pub model: String,
    /// What generates.
    pub engine: Arc<dyn Engine>,
    /// What shows in the process's health whether the engine answers; `None`, if that is for
    /// others to judge, as where several workers share a process.
    pub condition: Option<Condition>,
}

/// An engine on the planes: others find it, ask it and follow its KV events.
///
/// One task watches over it. When the engine is gone (its KV events end, or it answers a request
/// with `Unavailable` and then fails to generate one token), the worker deregisters, says so in
/// the log and its condition, and registers again once the engine answers. A shutdown of the
/// process deregisters it first.
///
/// Dropping it deregisters it in the background, and ends the streams that run.
pub struct Worker {
    id: WorkerId,
    served: Box<dyn Served>,
    task: TaskHandle,
}

impl Worker {
    /// Starts a worker. The engine must answer a request of one token first; then it is served,
    /// and then registered: who finds it can use it.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(
        config: &WorkerConfig,
        spec: WorkerSpec,
        planes: &Planes,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let endpoint = engine_endpoint(&config.namespace).map_err(StartError::Namespace)?;
        let card = WorkerCard {
            model: spec.model,
            engine: spec.engine.info().clone(),
        };
        let handler = Arc::new(EngineHandler::new(spec.engine.clone()));
        let mut supervisor = Supervisor {
            config: config.clone(),
            engine: spec.engine,
            handler: handler.clone(),
            planes: planes.clone(),
            condition: spec.condition,
            canaries: Default::default(),
            instance: Instance {
                endpoint: endpoint.clone(),
                worker: spec.id,
                address: String::new(),
                card: card.encode(),
            },
        };
        supervisor.canary().await.map_err(StartError::Engine)?;
        let served = planes.requests.serve(&endpoint, spec.id, handler).await;
        let served = served.map_err(StartError::Plane)?;
        supervisor.instance.address = served.address().to_owned();
        let present = supervisor.enter().await.map_err(StartError::Plane)?;
        let task = tasks.spawn_cooperative(TaskKind::Background, "worker", |cancel| {
            supervisor.run(present, cancel)
        });
        Ok(Self {
            id: spec.id,
            served,
            task,
        })
    }

    /// Who it is.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Deregisters, refuses new streams and lets those that run go on for as long as `grace`; then
    /// ends them. Whether all of them ended by themselves.
    pub async fn stop(mut self, grace: Duration) -> bool {
        self.task.cancel();
        self.task.ended().await;
        timeout(grace, self.served.drain()).await.is_ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.cancel();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id)
            .field("address", &self.served.address())
            .finish_non_exhaustive()
    }
}
