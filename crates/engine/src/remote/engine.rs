use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use forebay_protocols::worker::{self, artefact::Content, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{
    Instance, Planes, ResponseStream, StreamRequest, TaskHandle, TaskKind, Tasks,
};
use forebay_tokens::{RequestId, WorkerId};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use prost::Message;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::KvUpdate;
use super::artefact::ArtefactDigest;
use super::artefact_parts;
use super::card::WorkerCard;
use super::frames::{ask, broken, decode};
use super::generate_frame::encode_generate;
use super::generation::Outputs;
use super::known_card::KnownCard;
use super::kv_answer::KvRepairs;
use super::kv_following;
use super::kv_stream::kv_stream;
use super::load::KnownLoad;
use super::names::report_topic;
use super::stops::Stops;
use crate::{
    Capabilities, Control, EmbedOutput, EmbedRequest, EncodeOutput, EncodeRequest, Engine,
    EngineInfo, GenerateRequest, GenerateStream, KvEventStream, Load, MediaOutput, MediaRequest,
    ScoreOutput, ScoreRequest,
};

/// The wait before a new attempt to subscribe to a worker's reports.
const RETRY: Duration = Duration::from_secs(1);

/// The engine of a worker, reached over the planes.
///
/// It adds to the worker's engine what the request plane adds, and no task for a generation. Where
/// it differs from an engine at hand:
///
/// - [`Engine::load`] gives what the worker last reported. The first look subscribes to what the
///   worker publishes, at most 50 ms after a change, and with it to its card's changes
///   ([`Self::card_changes`]). Of a worker from which nothing comes for 5
///   seconds it asks in the background at a look, if what is known is older than 10 ms.
/// - [`Engine::abort`] is on its way when it returns.
/// - [`Engine::stop`] finds the streams of this `RemoteEngine` alone, and is on its way when they
///   are next polled.
/// - [`Engine::kv_events`] combines both planes: a snapshot, then the changes that are published.
///   Changes that were lost, and that the worker does not have any more, end it with reason
///   `kv_events_lagged`; a worker that cannot be reached is waited for. Who can forget and begin
///   anew uses [`Self::kv_updates`].
pub struct RemoteEngine {
    instance: Instance,
    /// What stays of its card.
    info: EngineInfo,
    model: String,
    card: KnownCard,
    planes: Planes,
    tasks: Tasks,
    runtime: Handle,
    load: KnownLoad,
    stops: Stops,
    /// What takes the worker's reports, once someone has looked at its load.
    report_task: OnceLock<TaskHandle>,
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
            info: card.engine.clone(),
            model: card.model.clone(),
            card: KnownCard::new(card),
            planes: planes.clone(),
            tasks: tasks.clone(),
            runtime: Handle::current(),
            load: KnownLoad::new(load),
            stops: Stops::default(),
            report_task: OnceLock::new(),
        })
    }

    /// Which worker it is.
    pub fn worker(&self) -> WorkerId {
        self.instance.worker
    }

    /// The name under which the worker serves its model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What the worker says about itself: the newest that is known.
    pub fn card(&self) -> Arc<WorkerCard> {
        self.card.get()
    }

    /// Takes what discovery says of the worker now. A card that is older than what is known already
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// `BackendProtocol`, if it is no card; `Conflict`, each time, if it is newer and cannot be this
    /// worker's, as [`WorkerCard::check_change`](super::WorkerCard::check_change) has it: then it is
    /// another engine's.
    pub fn take_card(&self, card: Bytes) -> Result<(), Error> {
        Ok(self.card.offer(WorkerCard::decode(card)?)?)
    }

    /// The worker's newer cards from now on, each once or the newest of several, from discovery
    /// ([`Self::take_card`]) or as the worker publishes them, whichever is first. They are published
    /// to who has looked at the [load](Engine::load), at once and again within 2 seconds, so that
    /// what is lost is made up for. The stream does not keep the engine, and ends with it.
    pub fn card_changes(&self) -> BoxStream<'static, Arc<WorkerCard>> {
        self.card.changes()
    }

    /// Fetches an artefact that the worker has, such as its card's tokenizer, and holds it against
    /// its digest.
    ///
    /// # Errors
    ///
    /// `NotFound`, if the worker does not have it; `BackendProtocol`, if it sends another one, too
    /// much (beyond 128 MiB), or a kind that this version does not know; `Deadline`, if a part of
    /// it (256 KiB) does not come within 10 seconds of the one before; what the request plane says.
    pub async fn artefact(&self, digest: ArtefactDigest) -> Result<Content, Error> {
        let request = worker::ArtefactRequest {
            digest: digest.0.to_vec(),
        };
        let parts = self.open(ask(Operation::Artefact(request)));
        artefact_parts::receive(parts, digest).await
    }

    /// Follows the worker's KV caches for as long as the stream is polled: what is to be done to know
    /// what they hold, and how exact that is.
    ///
    /// Whatever is lost on the way is noticed and repaired, in turn with all that share `repairs`.
    /// While the worker cannot be reached the stream is silent and tries again: what is known is a
    /// hint that may be old, and who is gone is discovery's to say. It ends at once if the engine
    /// has no KV events, and otherwise not at all.
    ///
    /// Needs a tokio runtime with time.
    pub fn kv_updates(&self, repairs: &KvRepairs) -> BoxStream<'static, KvUpdate> {
        let capabilities = self.info.capabilities;
        if !capabilities.contains(Capabilities::KV_EVENTS) {
            return stream::empty().boxed();
        }
        let (planes, instance) = (self.planes.clone(), self.instance.clone());
        let ranks = self.info.data_parallel_ranks;
        kv_following::follow(planes, instance, ranks, repairs.clone())
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

    /// Takes what the worker reports from now on, in the background.
    fn follow_reports(&self) {
        self.report_task.get_or_init(|| {
            let (planes, instance) = (self.planes.clone(), self.instance.clone());
            let (load, card) = (self.load.clone(), self.card.clone());
            let _runtime = self.runtime.enter();
            (self.tasks).spawn(TaskKind::Background, "remote_reports", async move {
                let mut ignored = None;
                loop {
                    take_reports(&planes, &instance, &load, &card, &mut ignored).await;
                    sleep(RETRY).await;
                }
            })
        });
    }

    /// Goes on in the background, wherever it is called from.
    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let _runtime = self.runtime.enter();
        self.tasks.spawn(TaskKind::Request, name, future);
    }
}

impl Engine for RemoteEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let (stoppable, stop) = (self.stops).begin(&request.request_id, request.choice_index);
        let request = StreamRequest {
            stop,
            ..StreamRequest::of(encode_generate(request))
        };
        let mut frames = self.planes.requests.open(&self.instance.address, request);
        async move {
            let _: worker::Accepted = decode(first(&mut frames).await?)?;
            Ok(Outputs::new(frames, stoppable).boxed())
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

    fn stop(&self, request: &RequestId, choice: u32) {
        self.stops.stop(request.as_str(), choice);
    }

    fn load(&self) -> Load {
        self.follow_reports();
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
        let updates = self.kv_updates(&KvRepairs::default());
        Ok(kv_stream(updates, self.info().data_parallel_ranks))
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

impl Drop for RemoteEngine {
    fn drop(&mut self) {
        if let Some(task) = self.report_task.get() {
            task.cancel();
        }
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

/// Takes what a worker reports, until the subscription ends. `ignored` is the revision of the last
/// card that was not taken: it comes again and again, and is logged once.
async fn take_reports(
    planes: &Planes,
    instance: &Instance,
    load: &KnownLoad,
    card: &KnownCard,
    ignored: &mut Option<u64>,
) {
    let topic = report_topic(&instance.endpoint, instance.worker);
    // Who cannot subscribe asks, and tries again.
    let Ok(mut events) = planes.events.subscribe(&topic, instance).await else {
        return;
    };
    while let Some(event) = events.next().await {
        // What was lost is old, and what cannot be read is not known.
        let Ok(event) = event else { continue };
        if event.stamp.publisher != instance.worker {
            continue;
        }
        let Ok(report) = decode::<worker::WorkerReport>(event.payload) else {
            continue;
        };
        if let Some(told) = report.load {
            load.tell(Instant::now(), told);
        }
        let Some(told) = report.card else { continue };
        let revision = told.revision;
        let taken = WorkerCard::of_message(told).and_then(|told| Ok(card.offer(told)?));
        if let Err(error) = taken
            && ignored.replace(revision) != Some(revision)
        {
            let diagnostic = error.diagnostic.as_deref();
            warn!(worker = instance.worker.0, %error, diagnostic, "card ignored");
        }
    }
}
