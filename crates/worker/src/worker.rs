use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::Engine;
use forebay_engine::remote::{Artefacts, CardChangeError, WorkerCard};
use forebay_runtime::{Condition, Planes, Served, TaskHandle, TaskKind, Tasks};
use forebay_tokens::WorkerId;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::config::WorkerConfig;
use crate::error::StartError;
use crate::handle::WorkerHandle;
use crate::leaving::Leaving;
use crate::own_card::OwnCard;
use crate::supervisor::Supervisor;

/// How long a worker that leaves is still taken for one by those who know it from discovery alone,
/// before it refuses what they send: as long as discovery takes to tell them, where it is there.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a worker is.
pub struct WorkerSpec {
    /// Who it is: no other worker of the deployment has this id, nor has had it before.
    pub id: WorkerId,
    /// What it says about itself at first, made of the engine's [`info`](Engine::info);
    /// [`WorkerHandle::update_card`] changes it.
    pub card: WorkerCard,
    /// What it gives to who asks, such as the card's tokenizer and template.
    pub artefacts: Arc<Artefacts>,
    /// What generates.
    pub engine: Arc<dyn Engine>,
    /// What shows in the process's health whether the engine answers; `None`, if that is for
    /// others to judge, as where several workers share a process.
    pub condition: Option<Condition>,
}

/// An engine on the planes: others find it, ask it and follow its KV events.
///
/// One task watches over it. The engine is gone when
///
/// - its KV events end, or it answers a request with `Unavailable`, and then it fails to generate
///   one token, or
/// - it has stalled: clients wait for it, and for
///   [`stall_timeout_seconds`](WorkerConfig::stall_timeout_seconds) none of them got an output, no
///   prefill went on as far as [`Engine::load`] tells, and it failed to generate one token. A
///   client that does not take its outputs waits for nothing. An engine that was paused through
///   the worker may do nothing; a pause that came another way looks like a stall.
///
/// Then the worker ends the streams that run with `Unavailable`, so that whoever asks goes on
/// elsewhere, deregisters, says so in the log and its condition, and is served and registered again
/// once the engine answers.
///
/// Dropping it deregisters it in the background, and ends the streams that run.
pub struct Worker {
    handle: WorkerHandle,
    /// What the task leaves, once it has ended: nothing, if the engine was gone.
    served: oneshot::Receiver<Box<dyn Served>>,
    task: TaskHandle,
}

impl Worker {
    /// Starts a worker. The engine must answer a request of one token first; then it is served,
    /// and then registered: who finds it can use it. If discovery cannot be reached then, the worker
    /// has started all the same, and is registered once it can.
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
        let config = config.checked()?;
        if !WorkerCard::is_weight(spec.card.weight) {
            return Err(StartError::Card(CardChangeError::Weight));
        }
        let card = OwnCard::new(spec.card);
        let (standing, standing_now) = watch::channel(None);
        let supervisor = Supervisor {
            standing,
            endpoint: config.endpoint.clone(),
            worker: spec.id,
            card: card.clone(),
            config,
            artefacts: spec.artefacts,
            engine: spec.engine,
            planes: planes.clone(),
            tasks: tasks.clone(),
            condition: spec.condition,
            canaries: Default::default(),
        };
        supervisor.canary().await.map_err(StartError::Engine)?;
        let present = supervisor.enter().await.map_err(StartError::Plane)?;
        let (hand_over, served) = oneshot::channel();
        let task = tasks.spawn_cooperative(TaskKind::Background, "worker", |cancel| {
            supervisor.run(present, hand_over, cancel)
        });
        Ok(Self {
            handle: WorkerHandle {
                id: spec.id,
                card,
                standing: standing_now,
            },
            served,
            task,
        })
    }

    /// Who it is.
    pub fn id(&self) -> WorkerId {
        self.handle.id
    }

    /// What can be seen of it and asked of it while others have the worker itself.
    pub fn handle(&self) -> &WorkerHandle {
        &self.handle
    }

    /// Deregisters, and gives what is still served: nothing, if the engine was gone. Where discovery
    /// has not confirmed it within a second, that goes on beside it.
    pub async fn leave(mut self) -> Leaving {
        self.task.cancel();
        // Whoever hears of it from discovery sends nothing that would be refused.
        let _ = timeout(FAREWELL, self.task.ended()).await;
        let standing = self.handle.standing.borrow().clone();
        match (self.served.try_recv(), standing) {
            (Ok(served), Some(standing)) => Leaving::new(served, standing.handler),
            _ => Leaving::default(),
        }
    }

    /// Deregisters, refuses new streams and lets those that run go on for as long as `grace`; then,
    /// or once the engine is paused, ends them. Whether all of them ended by themselves.
    pub async fn stop(self, grace: Duration) -> bool {
        let leaving = self.leave().await;
        timeout(grace, leaving.drain()).await.unwrap_or(false)
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
            .field("id", &self.handle.id)
            .finish_non_exhaustive()
    }
}
