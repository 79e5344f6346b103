use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_protocols::worker::{self, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{Publisher, ResponseStream, StreamHandler, StreamRequest, Tasks};
use forebay_tokens::RequestId;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use prost::Message;
use tokio::sync::{Notify, watch};

use super::artefact::Artefacts;
use super::artefact_parts;
use super::card::WorkerCard;
use super::frames::encode;
use super::generate_frame::decode_operation;
use super::kv_figures::KvFigures;
use super::kv_frames::read_position;
use super::kv_publisher::KvPublisher;
use super::kv_truth::KvTruth;
use super::progress::{Generations, Mark, Progress};
use super::report_publisher::ReportPublisher;
use crate::{Control, Engine, GenerateStream, Load};

/// Answers what [`RemoteEngine`](super::RemoteEngine)s ask, from an engine in this process.
///
/// A generation adds no task and no buffer to the engine's own stream: one message is encoded when
/// the client takes it. What the handler sees of the engine on the way ([`Self::progress`],
/// [`Self::is_paused`], [`Self::unavailable`]) is for whoever watches over it.
pub struct EngineHandler {
    engine: Arc<dyn Engine>,
    artefacts: Arc<Artefacts>,
    unavailable: Arc<Notify>,
    generations: Generations,
    paused: watch::Sender<bool>,
    refuses_while_paused: bool,
    /// Of the newest publisher of KV events.
    kv_truth: KvTruth,
    /// A generation has begun.
    begun: Arc<Notify>,
}

impl EngineHandler {
    /// A handler for an engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            artefacts: Arc::default(),
            unavailable: Arc::default(),
            generations: Generations::default(),
            paused: watch::Sender::new(false),
            refuses_while_paused: false,
            kv_truth: KvTruth::new(),
            begun: Arc::default(),
        }
    }

    /// The same handler with what the engine's card refers to.
    #[must_use]
    pub fn with_artefacts(mut self, artefacts: Arc<Artefacts>) -> Self {
        self.artefacts = artefacts;
        self
    }

    /// The same handler, which refuses generations while the engine is paused, with
    /// `Unavailable`, reason `worker_paused`: who asks then goes elsewhere, instead of waiting for
    /// the end of the pause in the engine's queue.
    #[must_use]
    pub fn refusing_while_paused(mut self) -> Self {
        self.refuses_while_paused = true;
        self
    }

    /// What publishes the engine's KV events; without one, nobody can follow them. Followers are
    /// answered with work that `tasks` run.
    pub fn kv_publisher(&self, publisher: Box<dyn Publisher>, tasks: &Tasks) -> KvPublisher {
        let (engine, truth) = (self.engine.clone(), self.kv_truth.clone());
        KvPublisher::new(engine, publisher, truth, tasks.clone())
    }

    /// What publishes the engine's load, and its worker's card when that changes.
    pub fn report_publisher(
        &self,
        publisher: Box<dyn Publisher>,
        card: watch::Receiver<Arc<WorkerCard>>,
    ) -> ReportPublisher {
        let (engine, begun) = (self.engine.clone(), self.begun.clone());
        ReportPublisher::new(engine, publisher, card, begun)
    }

    /// Waits until the engine answers a generation with `Unavailable`: it may be gone. Answers
    /// that came while nobody waited count as one. Cancel-safe.
    pub async fn unavailable(&self) {
        self.unavailable.notified().await;
    }

    /// How the generations get on that were asked for here.
    pub fn progress(&self) -> Progress {
        self.generations.progress()
    }

    /// Whether it was told to pause the engine, and none has resumed it. A pause that came another
    /// way is not known.
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// [`Self::is_paused`], to be waited for.
    pub fn paused(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    /// What the engine has to do and holds.
    pub fn load(&self) -> Load {
        self.engine.load()
    }

    /// What the engine's KV events come to, as far as they are published.
    pub fn kv_figures(&self) -> KvFigures {
        self.kv_truth.figures()
    }

    /// Changes the engine's state, as a client may ask for it.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn control(&self, control: Control) -> BoxFuture<'static, Result<(), Error>> {
        let (engine, paused) = (self.engine.clone(), self.paused.clone());
        async move {
            engine.control(control).await?;
            let is_paused = match control {
                Control::Pause => true,
                Control::Resume => false,
                Control::Unspecified | Control::ClearKvCache => return Ok(()),
            };
            paused.send_if_modified(|paused| mem::replace(paused, is_paused) != is_paused);
            Ok(())
        }
        .boxed()
    }

    fn answer(&self, operation: Operation, stop: BoxFuture<'static, ()>) -> ResponseStream {
        let engine = self.engine.clone();
        match operation {
            Operation::Generate(_) if self.refuses_while_paused && self.is_paused() => {
                let message = "the worker is paused";
                let class = ErrorClass::Unavailable;
                one(Err(Error::new(class, "worker_paused", message)))
            }
            Operation::Generate(request) => {
                self.begun.notify_one();
                Generation {
                    stop: Some(Stop {
                        asked: stop,
                        engine: engine.clone(),
                        request: request.request_id.clone(),
                        choice: request.choice_index,
                    }),
                    state: State::Starting(async move { engine.generate(request).await }.boxed()),
                    unavailable: self.unavailable.clone(),
                    mark: self.generations.begin(),
                }
                .boxed()
            }
            Operation::Abort(request) => {
                if let Ok(id) = RequestId::new(&request.request_id) {
                    engine.abort(&id);
                }
                one(Ok(encode(&worker::Done {})))
            }
            Operation::Load(_) => one(Ok(encode(&engine.load()))),
            Operation::KvSync(request) => self.kv_truth.sync(request.since.map(read_position)),
            Operation::Control(request) => match request.control.try_into() {
                Ok(control) => {
                    let done = self.control(control);
                    single(async { done.await.map(|()| worker::Done {}) })
                }
                Err(_) => one(Err(unknown("control"))),
            },
            Operation::Embed(request) => single(async move { engine.embed(request).await }),
            Operation::Score(request) => single(async move { engine.score(request).await }),
            Operation::Encode(request) => single(async move { engine.encode(request).await }),
            Operation::Media(request) => single(async move { engine.media(request).await }),
            Operation::Artefact(request) => artefact_parts::send(&self.artefacts, &request.digest),
        }
    }
}

impl StreamHandler for EngineHandler {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        match decode_operation(request.first) {
            Ok(Some(operation)) => self.answer(operation, request.stop),
            Ok(None) => one(Err(unknown("operation"))),
            Err(error) => one(Err(error)),
        }
    }
}

impl std::fmt::Debug for EngineHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandler")
            .field("engine", self.engine.info())
            .finish_non_exhaustive()
    }
}

/// An answer of one frame that is there.
fn one(frame: Result<Bytes, Error>) -> ResponseStream {
    stream::iter([frame]).boxed()
}

/// An answer of one frame.
fn single<M: Message>(
    output: impl Future<Output = Result<M, Error>> + Send + 'static,
) -> ResponseStream {
    stream::once(async { output.await.map(|output| encode(&output)) }).boxed()
}

/// What a client of a later version may ask.
fn unknown(what: &str) -> Error {
    let message = format!("this worker does not know the {what}");
    Error::new(ErrorClass::Unsupported, "unknown_operation", message)
}

/// The answer to a generation: `Accepted`, then each output.
struct Generation {
    state: State,
    /// None once it has been passed on.
    stop: Option<Stop>,
    unavailable: Arc<Notify>,
    mark: Mark,
}

/// A client's wish for the end of a generation, for the engine.
struct Stop {
    asked: BoxFuture<'static, ()>,
    engine: Arc<dyn Engine>,
    request: String,
    choice: u32,
}

impl Stop {
    /// Asks the engine once the client has asked; whether that is so.
    fn is_passed_on(&mut self, context: &mut Context<'_>) -> bool {
        let is_asked = self.asked.poll_unpin(context).is_ready();
        if is_asked && let Ok(request) = RequestId::new(&self.request) {
            self.engine.stop(&request, self.choice);
        }
        is_asked
    }
}

enum State {
    Starting(BoxFuture<'static, Result<GenerateStream, Error>>),
    Running(GenerateStream),
    Ended,
}

impl Generation {
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        match &mut self.state {
            State::Starting(start) => Poll::Ready(match ready!(start.poll_unpin(context)) {
                Ok(outputs) => {
                    self.state = State::Running(outputs);
                    Some(Ok(encode(&worker::Accepted {})))
                }
                Err(error) => Some(Err(error)),
            }),
            State::Running(outputs) => {
                let Poll::Ready(output) = outputs.poll_next_unpin(context) else {
                    // Looked at where there is nothing to give, which costs no token anything.
                    self.stop.take_if(|stop| stop.is_passed_on(context));
                    return Poll::Pending;
                };
                if let Some(Ok(_)) = &output {
                    self.mark.gives();
                }
                Poll::Ready(output.map(|output| output.map(|output| encode(&output))))
            }
            State::Ended => Poll::Ready(None),
        }
    }
}

impl Stream for Generation {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(item) = self.poll_item(context) else {
            self.mark.waits();
            return Poll::Pending;
        };
        self.mark.waits_no_more();
        if let Some(Err(error)) = &item {
            if error.class == ErrorClass::Unavailable {
                self.unavailable.notify_one();
            }
            self.state = State::Ended;
        }
        Poll::Ready(item)
    }
}
