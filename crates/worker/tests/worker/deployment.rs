//! A worker on in-process planes, and who finds it.

use std::sync::Arc;

use forebay_engine::remote::{RemoteEngine, WorkerCard, engine_endpoint};
use forebay_engine::{Engine, GenerateRequest};
use forebay_observability::Registry;
use forebay_protocols::worker::StopConditions;
use forebay_runtime::{EndpointId, Health, Instance, InstanceEvent, Planes, Tasks, Watch};
use forebay_tokens::WorkerId;
use forebay_worker::{StartError, Worker, WorkerConfig, WorkerSpec};
use futures::StreamExt;

use crate::toy::{Toy, in_time};

/// A deployment of one worker.
pub(crate) struct Deployment {
    pub(crate) planes: Planes,
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
    pub(crate) toy: Toy,
    pub(crate) watch: Watch,
}

pub(crate) fn endpoint() -> EndpointId {
    engine_endpoint("forebay").unwrap()
}

pub(crate) fn config() -> WorkerConfig {
    WorkerConfig {
        retry_seconds: 0.01,
        ..Default::default()
    }
}

impl Deployment {
    pub(crate) async fn new() -> Self {
        let planes = Planes::in_process();
        let mut watch = planes.discovery.watch(&endpoint()).await.unwrap();
        assert_eq!(watch.next().await, Some(InstanceEvent::Present(vec![])));
        Self {
            planes,
            tasks: Tasks::new(&Registry::new()),
            health: Health::new(),
            toy: Toy::new(),
            watch,
        }
    }

    pub(crate) async fn start(&self) -> Result<Worker, StartError> {
        self.start_with(&config()).await
    }

    pub(crate) async fn start_with(&self, config: &WorkerConfig) -> Result<Worker, StartError> {
        let spec = WorkerSpec {
            id: WorkerId(5),
            card: WorkerCard::new("model", self.toy.info().clone()),
            artefacts: Arc::default(),
            engine: Arc::new(self.toy.clone()),
            condition: Some(self.health.condition("engine", "starting")),
        };
        Worker::start(config, spec, &self.planes, &self.tasks).await
    }

    pub(crate) async fn next_event(&mut self) -> InstanceEvent {
        in_time(self.watch.next()).await.unwrap()
    }

    /// The instance that comes next.
    pub(crate) async fn put(&mut self) -> Instance {
        match self.next_event().await {
            InstanceEvent::Put(instance) => instance,
            other => panic!("{other:?}"),
        }
    }

    /// The engine that comes next.
    pub(crate) async fn found(&mut self) -> RemoteEngine {
        let instance = self.put().await;
        self.remote(instance)
    }

    pub(crate) async fn removed(&mut self) {
        let removed = InstanceEvent::Removed(WorkerId(5));
        assert_eq!(self.next_event().await, removed);
    }

    pub(crate) fn remote(&self, instance: Instance) -> RemoteEngine {
        RemoteEngine::new(instance, &self.planes, &self.tasks).unwrap()
    }
}

pub(crate) fn request(tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: "request".into(),
        prompt_token_ids: vec![1, 2, 3],
        stop: Some(StopConditions {
            max_tokens: Some(tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}
