use std::convert::Infallible;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_engine::remote::{
    Artefacts, EngineHandler, KvPublisher, ReportPublisher, kv_topic, report_topic,
};
use forebay_engine::{Capabilities, Engine, Error, ErrorClass};
use forebay_observability::ErrorChain;
use forebay_runtime::{
    Condition, EndpointId, Instance, PlaneError, Planes, Registration, Served, TaskKind, Tasks,
};
use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::{Fuse, pending};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::canary::canary;
use crate::config::Checked;
use crate::own_card::OwnCard;
use crate::standing::{Standing, engine_lost};
use crate::stillness::{LOOKS, LOOKS_UNASKED, Sight, Stillness};

/// What watches over a worker's engine, and lets others use it while it answers.
pub(crate) struct Supervisor {
    pub(crate) config: Checked,
    pub(crate) artefacts: Arc<Artefacts>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) planes: Planes,
    pub(crate) tasks: Tasks,
    pub(crate) condition: Option<Condition>,
    pub(crate) endpoint: EndpointId,
    pub(crate) worker: WorkerId,
    pub(crate) card: OwnCard,
    /// How many were sent.
    pub(crate) canaries: AtomicU64,
    /// Nothing, while the engine is gone.
    pub(crate) standing: watch::Sender<Option<Standing>>,
}

/// While others know the worker. Each time it is another one: what was seen of an engine before it
/// was lost says nothing about it.
pub(crate) struct Present {
    handler: Arc<EngineHandler>,
    served: Box<dyn Served>,
    /// Nothing, while discovery does not take it.
    registered: Option<Registered>,
    publisher: KvPublisher,
    reports: ReportPublisher,
}

/// What discovery knows.
struct Registered {
    registration: Box<dyn Registration>,
    /// Of the card.
    revision: u64,
}

impl Supervisor {
    /// Whether the engine answers. One that is too busy to is well.
    pub(crate) async fn canary(&self) -> Result<(), Error> {
        match self.answer().await {
            Err(error) if error.class == ErrorClass::CapacityExhausted => Ok(()),
            outcome => outcome,
        }
    }

    async fn answer(&self) -> Result<(), Error> {
        let number = self.canaries.fetch_add(1, Ordering::Relaxed);
        let id = format!("canary-{}-{number}", self.worker);
        canary(&*self.engine, id, self.config.canary).await
    }

    /// Serves the engine and makes the worker known; before that its KV events can be followed.
    /// Where discovery cannot be reached, the worker is served all the same, and registered later.
    pub(crate) async fn enter(&self) -> Result<Present, PlaneError> {
        let (endpoint, worker) = (&self.endpoint, self.worker);
        let handler = EngineHandler::new(self.engine.clone())
            .with_artefacts(self.artefacts.clone())
            .refusing_while_paused();
        let handler = Arc::new(handler);
        let requests = &self.planes.requests;
        let served = requests.serve(endpoint, worker, handler.clone()).await?;
        let publisher = self.kv_publisher(&handler).await?;
        let reports = self.report_publisher(&handler).await?;
        let standing = Standing {
            handler: handler.clone(),
            address: served.address().to_owned(),
            is_registered: false,
        };
        self.standing.send_replace(Some(standing));
        self.card.announce_all(&*served);
        let registered = match self.register(&*served).await {
            Ok(registered) => Some(registered),
            Err(error @ PlaneError::Unreachable(_)) => {
                self.not_taken(&error, false);
                None
            }
            Err(error) => {
                self.standing.send_replace(None);
                return Err(error);
            }
        };
        Ok(Present {
            handler,
            served,
            registered,
            publisher,
            reports,
        })
    }

    /// Makes the worker known, with the card that it has now.
    async fn register(&self, served: &dyn Served) -> Result<Registered, PlaneError> {
        let now = self.card.get();
        let (card, revision) = (now.encode(), now.revision);
        served.announce(card.clone());
        let instance = Instance {
            endpoint: self.endpoint.clone(),
            worker: self.worker,
            address: served.address().to_owned(),
            card,
        };
        let registration = self.planes.discovery.register(instance).await?;
        self.standing.send_modify(|standing| {
            if let Some(standing) = standing {
                standing.is_registered = true;
            }
        });
        if let Some(condition) = &self.condition {
            condition.set_ready();
        }
        let (worker, address) = (self.worker.0, served.address());
        debug!(worker, address, revision, "worker registered");
        Ok(Registered {
            registration,
            revision,
        })
    }

    /// Goes on trying, if discovery has not taken the worker; registers it again when its card has
    /// changed, and waits for the next change where that is refused; and takes it out of discovery for
    /// as long as its engine is paused, which those who are connected are told at once.
    async fn keep_registered(
        &self,
        handler: &EngineHandler,
        served: &dyn Served,
        registered: &mut Option<Registered>,
    ) -> Infallible {
        let (mut paused, mut card) = (handler.paused(), self.card.changes());
        let (mut was_paused, mut refused) = (false, 0);
        if registered.is_none() {
            // It was tried just now.
            sleep(self.config.retry).await;
        }
        loop {
            let revision = card.borrow_and_update().revision;
            let known = registered.as_ref().map(|known| known.revision);
            let before = mem::replace(&mut was_paused, *paused.borrow_and_update());
            if was_paused != before {
                served.set_paused(was_paused);
                match was_paused {
                    true => self.pause(registered.take()),
                    false => self.not_ready("not registered again yet"),
                }
            }
            if !was_paused && known.is_none_or(|known| known.max(refused) < revision) {
                let registering = self.register(served);
                let now = tokio::select! {
                    biased;
                    _ = paused.changed() => continue,
                    now = registering => now,
                };
                match now {
                    Ok(now) => {
                        // It has replaced the one before.
                        *registered = Some(now);
                        let worker = self.worker.0;
                        match known {
                            None => info!(worker, "worker registered at last"),
                            Some(_) => info!(worker, revision, "worker registered anew"),
                        }
                    }
                    Err(error) => {
                        self.not_taken(&error, known.is_some());
                        if known.is_none() || !is_refusal(&error) {
                            tokio::select! {
                                _ = paused.changed() => {}
                                () = sleep(self.config.retry) => {}
                            }
                            continue;
                        }
                        refused = revision;
                    }
                }
            }
            // The worker has both senders.
            tokio::select! {
                _ = paused.changed() => {}
                _ = card.changed() => {}
            }
        }
    }

    /// Says that discovery has not taken the worker, or its card, if the worker is known by one from
    /// before.
    fn not_taken(&self, error: &PlaneError, is_known: bool) {
        match (is_known, is_refusal(error)) {
            (true, true) => self.warn(error, "card refused by discovery; the one before stays"),
            (true, false) => self.warn(error, "card not told to discovery yet"),
            (false, true) => {
                self.warn(error, "worker refused by discovery");
                self.not_ready("discovery does not take the worker");
            }
            (false, false) => {
                self.warn(error, "worker not registered yet");
                self.not_ready("discovery cannot be reached");
            }
        }
    }

    /// Takes the worker out of discovery, and says why. What runs there stays.
    fn pause(&self, registered: Option<Registered>) {
        info!(worker = self.worker.0, "worker paused");
        self.not_ready("paused");
        self.standing.send_modify(|standing| {
            if let Some(standing) = standing {
                standing.is_registered = false;
            }
        });
        self.deregister_beside(registered);
    }

    /// Runs until it is cancelled. What is served goes to `hand_over` then, if someone still wants it
    /// to end well; after that the worker leaves discovery, which may be away.
    pub(crate) async fn run(
        self,
        mut present: Present,
        hand_over: oneshot::Sender<Box<dyn Served>>,
        cancel: CancellationToken,
    ) {
        loop {
            let lost = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                error = self.engine_lost(&mut present) => Some(error),
            };
            let Some(error) = lost else {
                // Where nobody is, its streams end here.
                let _ = hand_over.send(present.served);
                if let Some(registered) = present.registered {
                    deregister(self.worker, registered).await;
                }
                return;
            };
            self.lose(present, &error);
            present = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                present = self.come_back() => present,
            };
        }
    }

    /// A new epoch of KV events, as the engine may have begun anew.
    async fn kv_publisher(&self, handler: &EngineHandler) -> Result<KvPublisher, PlaneError> {
        let (endpoint, worker) = (&self.endpoint, self.worker);
        let topic = kv_topic(endpoint, worker);
        let publisher = self.planes.events.publisher(&topic, worker).await?;
        Ok(handler.kv_publisher(publisher, &self.tasks))
    }

    async fn report_publisher(
        &self,
        handler: &EngineHandler,
    ) -> Result<ReportPublisher, PlaneError> {
        let topic = report_topic(&self.endpoint, self.worker);
        let publisher = self.planes.events.publisher(&topic, self.worker).await?;
        Ok(handler.report_publisher(publisher, self.card.changes()))
    }

    /// Publishes KV events, load and changes of the card until the engine does not answer any more;
    /// gives how that showed.
    async fn engine_lost(&self, present: &mut Present) -> Error {
        let ended = Notify::new();
        let Present {
            handler,
            served,
            registered,
            publisher,
            reports,
        } = present;
        tokio::select! {
            never = self.keep_publishing(handler, publisher, &ended) => match never {},
            never = reports.run() => match never {},
            never = self.keep_registered(handler, &**served, registered) => match never {},
            error = self.watch_engine(handler, &ended) => error,
            error = self.stall(handler) => error,
        }
    }

    /// Asks the engine when something is odd.
    async fn watch_engine(&self, handler: &EngineHandler, ended: &Notify) -> Error {
        loop {
            tokio::select! {
                () = ended.notified() => {}
                () = handler.unavailable() => {}
            }
            let outputs = handler.progress().outputs;
            match self.canary().await {
                Ok(()) => {}
                // It may do nothing.
                Err(_) if handler.is_paused() => {}
                // It is late, but it answers others.
                Err(error)
                    if error.class == ErrorClass::Deadline
                        && handler.progress().outputs != outputs => {}
                Err(error) => return error,
            }
            // What was odd is not looked into again at once.
            sleep(self.config.retry).await;
        }
    }

    /// Waits until the engine has done nothing for too long, though clients wait for it.
    ///
    /// After half of the time it is asked for a token: one that answers is well, whatever its load
    /// and its clients look like. One that is too busy to has the other half to do something.
    async fn stall(&self, handler: &EngineHandler) -> Error {
        let sight = || Sight::of(handler, self.engine.load());
        let mut stillness = Stillness::since(sight());
        let mut asking = pin!(Fuse::terminated());
        loop {
            tokio::select! {
                () = &mut asking => {
                    stillness = Stillness::since(sight());
                    continue;
                }
                () = sleep(self.config.stall_timeout / LOOKS) => {}
            }
            match stillness.look(sight()) {
                LOOKS.. => {
                    let message = "the engine does nothing";
                    return Error::new(ErrorClass::Unavailable, "engine_stalled", message);
                }
                LOOKS_UNASKED => asking.set(self.until_answer().fuse()),
                0 => asking.set(Fuse::terminated()),
                _ => {}
            }
        }
    }

    /// Asks once; never ends if the engine does not give the token.
    async fn until_answer(&self) {
        if self.answer().await.is_err() {
            pending().await
        }
    }

    /// Publishes the engine's KV events, and says when they end.
    async fn keep_publishing(
        &self,
        handler: &EngineHandler,
        publisher: &mut KvPublisher,
        ended: &Notify,
    ) -> Infallible {
        let capabilities = self.engine.info().capabilities;
        if !capabilities.contains(Capabilities::KV_EVENTS) {
            return pending().await;
        }
        loop {
            publisher.run().await;
            ended.notify_one();
            *publisher = loop {
                sleep(self.config.retry).await;
                match self.kv_publisher(handler).await {
                    Ok(next) => break next,
                    Err(error) => self.warn(&error, "kv events not published"),
                }
            };
        }
    }

    /// Lets go of an engine: what runs there goes on elsewhere, at once, and nothing new comes.
    fn lose(&self, present: Present, error: &Error) {
        self.not_ready("the engine does not answer");
        self.standing.send_replace(None);
        let diagnostic = error.diagnostic.as_deref();
        warn!(worker = self.worker.0, %error, diagnostic, "engine lost");
        present.served.fail(engine_lost());
        drop(present.served);
        self.deregister_beside(present.registered);
    }

    fn not_ready(&self, reason: &str) {
        if let Some(condition) = &self.condition {
            condition.set_not_ready(reason);
        }
    }

    /// Takes the worker out of discovery, and does not wait for that: discovery may be away, and a
    /// registration that follows replaces this one.
    fn deregister_beside(&self, registered: Option<Registered>) {
        if let Some(registered) = registered {
            let goodbye = deregister(self.worker, registered);
            self.tasks.spawn(TaskKind::Background, "goodbye", goodbye);
        }
    }

    fn warn(&self, error: &PlaneError, message: &'static str) {
        tell(self.worker, error, message);
    }

    /// Waits for the engine, and makes the worker known again. Nothing was asked of the engine
    /// meanwhile: one that is too busy for a token is not well.
    async fn come_back(&self) -> Present {
        loop {
            sleep(self.config.retry).await;
            if self.answer().await.is_err() {
                continue;
            }
            match self.enter().await {
                Ok(present) => {
                    info!(worker = self.worker.0, "engine answers again");
                    return present;
                }
                Err(error) => self.warn(&error, "worker not registered"),
            }
        }
    }
}

async fn deregister(worker: WorkerId, registered: Registered) {
    match registered.registration.deregister().await {
        Ok(()) => debug!(worker = worker.0, "worker deregistered"),
        Err(error) => tell(worker, &error, "worker not deregistered"),
    }
}

fn is_refusal(error: &PlaneError) -> bool {
    matches!(error, PlaneError::Refused(_))
}

fn tell(worker: WorkerId, error: &PlaneError, message: &'static str) {
    warn!(worker = worker.0, error = %ErrorChain(error), "{message}");
}
