use std::fmt;

use bytes::Bytes;
use forebay_protocols::worker::{self, artefact::Content, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{Instance, Planes, ResponseStream, StreamRequest, TaskKind, Tasks};
use forebay_tokens::{RequestId, WorkerId};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::artefact::ArtefactDigest;
use super::artefact_parts;
use super::card::WorkerCard;
use super::frames::{ask, broken, decode};
use super::generate_frame::encode_generate;
use super::generation::Outputs;
use super::kv_subscription;
use super::load::KnownLoad;
use crate::{
    Capabilities, Control, EmbedOutput, EmbedRequest, EncodeOutput, EncodeRequest, Engine,
    EngineInfo, GenerateRequest, GenerateStream, KvEventStream, Load, MediaOutput, MediaRequest,
    ScoreOutput, ScoreRequest,
};

/// The engine of a worker, reached over the planes.
///
/// It adds to the worker's engine what the request plane adds, and no task for a generation. Where
/// it differs from an engine at hand:
///
/// - [`Engine::load`] gives what the worker last reported. Looking at it asks for a newer one in
///   the background if that is older than 10 ms; so who looks often is late by that and a round
///   trip, and a worker that nobody looks at is not asked.
/// - [`Engine::abort`] is on its way when it returns.
/// - [`Engine::kv_events`] combines both planes: a snapshot, then the changes that are published.
///   Changes that were lost end it with reason `kv_events_lagged`.
pub struct RemoteEngine {
    instance: Instance,
    card: WorkerCard,
    planes: Planes,
    tasks: Tasks,
    runtime: Handle,
    load: KnownLoad,
}

impl RemoteEngine {
    /// The engine of an instance that [`Discovery`](forebay_runtime::Discovery) has found. Nothing
    /// is sent yet.
    ///
    /// # Errors
    ///
    /// `BackendProtocol`, if the instance has no [`WorkerCard`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(instance: Instance, planes: &Planes, tasks: &Tasks) -> Result<Self, Error> {
        let card = WorkerCard::decode(instance.card.clone())?;
        let load = Load {
            kv_blocks_total: card.engine.kv_blocks,
            ..Load::default()
        };
        Ok(Self {
            instance,
            card,
            planes: planes.clone(),
            tasks: tasks.clone(),
            runtime: Handle::current(),
            load: KnownLoad::new(load),
        })
    }

    /// Which worker it is.
    pub fn worker(&self) -> WorkerId {
        self.instance.worker
    }

    /// The name under which the worker serves its model.
    pub fn model(&self) -> &str {
        &self.card.model
    }

    /// What the worker says about itself.
    pub fn card(&self) -> &WorkerCard {
        &self.card
    }

    /// Fetches an artefact that the worker has, such as its card's tokenizer, and holds it against
    /// its digest.
    ///
    /// # Errors
    ///
    /// `NotFound`, if the worker does not have it; `BackendProtocol`, if it sends another one, too
    /// much (beyond 128 MiB), or a kind that this version does not know; what the request plane
    /// says.
    pub async fn artefact(&self, digest: ArtefactDigest) -> Result<Content, Error> {
        let request = worker::ArtefactRequest {
            digest: digest.0.to_vec(),
        };
        let parts = self.open(ask(Operation::Artefact(request)));
        artefact_parts::receive(parts, digest).await
    }

    fn open(&self, frame: Bytes) -> ResponseStream {
        let request = StreamRequest::of(frame);
        self.planes.requests.open(&self.instance.address, request)
    }

    /// The answer to an operation that has one frame.
    fn single<M: Message + Default>(
        &self,
        operation: Operation,
    ) -> BoxFuture<'static, Result<M, Error>> {
        let mut frames = self.open(ask(operation));
        async move { decode(first(&mut frames).await?) }.boxed()
    }

    /// Goes on in the background, wherever it is called from.
    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let _runtime = self.runtime.enter();
        self.tasks.spawn(TaskKind::Request, name, future);
    }
}

impl Engine for RemoteEngine {
    fn info(&self) -> &EngineInfo {
        &self.card.engine
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let mut frames = self.open(encode_generate(request));
        async move {
            let _: worker::Accepted = decode(first(&mut frames).await?)?;
            Ok(Outputs::new(frames).boxed())
        }
        .boxed()
    }

    fn abort(&self, request: &RequestId) {
        let request_id = request.as_str().to_owned();
        let done = self.single(Operation::Abort(worker::AbortRequest { request_id }));
        self.spawn("remote_abort", async move {
            // A worker that cannot be reached has nothing to abort.
            let _: Result<worker::Done, Error> = done.await;
        });
    }

    fn load(&self) -> Load {
        let (load, question) = self.load.look(Instant::now());
        if let Some(question) = question {
            let answer = self.single(Operation::Load(worker::LoadRequest {}));
            self.spawn("remote_load", async move {
                if let Ok(load) = answer.await {
                    question.answer(load);
                }
            });
        }
        load
    }

    fn kv_events(&self) -> Result<KvEventStream, Error> {
        if !self.info().capabilities.contains(Capabilities::KV_EVENTS) {
            let message = "this engine does not support kv_events";
            return Err(Error::new(
                ErrorClass::Unsupported,
                "unsupported_operation",
                message,
            ));
        }
        Ok(kv_subscription::subscribe(
            self.planes.clone(),
            self.instance.clone(),
        ))
    }

    fn control(&self, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        let request = worker::ControlRequest {
            control: control.into(),
        };
        let done = self.single::<worker::Done>(Operation::Control(request));
        async move { done.await.map(|_| ()) }.boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedOutput, Error>> {
        self.single(Operation::Embed(request))
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<ScoreOutput, Error>> {
        self.single(Operation::Score(request))
    }

    fn encode(&self, request: EncodeRequest) -> BoxFuture<'_, Result<EncodeOutput, Error>> {
        self.single(Operation::Encode(request))
    }

    fn media(&self, request: MediaRequest) -> BoxFuture<'_, Result<MediaOutput, Error>> {
        self.single(Operation::Media(request))
    }
}

impl fmt::Debug for RemoteEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEngine")
            .field("instance", &self.instance)
            .field("card", &self.card)
            .finish_non_exhaustive()
    }
}

/// The first frame of an answer.
async fn first(frames: &mut ResponseStream) -> Result<Bytes, Error> {
    let frame = frames.next().await;
    frame.ok_or_else(|| broken("an answer without a frame"))?
}
