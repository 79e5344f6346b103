use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_observability::{ErrorChain, Registry};
use forebay_protocols::Error as RequestError;
use forebay_router::{BookingSnapshot, Followed, OwnerId};
use forebay_runtime::{
    Degradation, DownCause, EndpointId, Instance, InvalidName, MemberEvent, PlaneError, Planes,
    Publisher, Registration, Served, TaskKind, Tasks, members,
};
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, AbortHandle, BoxStream, FuturesUnordered, SelectAll};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::metrics::Metrics;
use super::peer::{Heard, bookings_topic, listen, owner_of, see_off};
use super::snapshots::{Snapshots, fetch};
use super::wire::{read_batch, write_batch};
use super::{Owner, SharedBooks};
use crate::Process;

/// How long news are collected before they are told.
const COLLECT: Duration = Duration::from_millis(20);
/// How often others are told how things stand, where nothing happens.
const MARK: Duration = Duration::from_secs(1);
/// The wait before a plane is tried again, or another frontend asked again.
const RETRY: Duration = Duration::from_secs(1);
/// About how many hashes and events a batch has.
const BATCH_HASHES: usize = 4096;

/// A frontend among the others of its deployment: they tell each other what they have booked, so
/// that each chooses workers by the load of all.
pub(crate) struct Replicas {
    endpoint: EndpointId,
    owner: Arc<Owner>,
    books: SharedBooks,
    planes: Planes,
    tasks: Tasks,
    registry: Registry,
    metrics: Metrics,
    /// The other frontends cannot find this one.
    alone: Degradation,
    others: HashMap<OwnerId, Other>,
    heard: SelectAll<BoxStream<'static, (OwnerId, Heard)>>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
}

/// A frontend's answer to who asked for its snapshot.
type Answer = (OwnerId, Result<BookingSnapshot, RequestError>);

/// Another frontend.
struct Other {
    instance: Instance,
    /// Ends what comes of it.
    listening: AbortHandle,
    /// Ends the wait for its end, if it drains.
    seeing_off: Option<AbortHandle>,
    /// When it was, or will be, asked for its snapshot the last time.
    asked: Option<Instant>,
}

/// While the others can find this frontend.
struct Present {
    publisher: Box<dyn Publisher>,
    registration: Box<dyn Registration>,
    _served: Box<dyn Served>,
}

impl Replicas {
    /// Joins the frontends of a deployment, for as long as the process serves: through a shutdown
    /// until nothing is booked any more. What `owner` books is told to the others, and what they
    /// book is in `books`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`], if `namespace` is no proper name.
    pub(crate) fn start(
        planes: &Planes,
        namespace: &str,
        owner: Arc<Owner>,
        books: SharedBooks,
        process: &Process,
    ) -> Result<(), InvalidName> {
        let replicas = Self {
            endpoint: EndpointId::new(namespace, "frontend", "router")?,
            owner,
            books,
            planes: planes.clone(),
            tasks: process.tasks.clone(),
            registry: process.metrics.clone(),
            metrics: Metrics::new(&process.metrics),
            alone: process.health.degradation("replicas"),
            others: HashMap::new(),
            heard: SelectAll::new(),
            answers: FuturesUnordered::new(),
        };
        (process.tasks).spawn_cooperative(TaskKind::Request, "router replicas", |cancel| {
            replicas.run(cancel)
        });
        Ok(())
    }

    fn id(&self) -> WorkerId {
        WorkerId(self.owner.id().0)
    }

    async fn run(mut self, cancel: CancellationToken) {
        let tasks = self.tasks.clone();
        let mut present = tokio::select! {
            present = self.appear() => present,
            () = cancel.cancelled() => return,
            _ = tasks.shutdown_begun() => return,
        };
        info!(endpoint = %self.endpoint, frontend = self.id().0, "frontend registered");
        tokio::select! {
            () = self.take_part(&mut *present.publisher) => {}
            () = cancel.cancelled() => {}
        }
        if let Err(error) = present.registration.deregister().await {
            warn!(error = %ErrorChain(&error), "frontend not deregistered");
        }
    }

    /// Makes this frontend known, which is tried until it succeeds. Until then the process's health
    /// says so.
    async fn appear(&mut self) -> Present {
        let mut is_first = true;
        loop {
            match self.try_to_appear().await {
                Ok(present) => {
                    self.alone.clear();
                    return present;
                }
                Err(error) => {
                    let reason = "this frontend cannot register: others do not know its bookings";
                    self.alone.set(reason);
                    match std::mem::take(&mut is_first) {
                        true => warn!(error = %ErrorChain(&error), "frontend not registered"),
                        false => debug!(error = %ErrorChain(&error), "frontend not registered"),
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn try_to_appear(&mut self) -> Result<Present, PlaneError> {
        let (requests, events) = (&self.planes.requests, &self.planes.events);
        let handler = Arc::new(Snapshots(self.owner.clone()));
        let served = requests.serve(&self.endpoint, self.id(), handler).await?;
        let topic = bookings_topic(&self.endpoint, self.id());
        let publisher = events.publisher(&topic, self.id()).await?;
        let instance = Instance {
            endpoint: self.endpoint.clone(),
            worker: self.id(),
            address: served.address().to_owned(),
            card: Default::default(),
        };
        served.announce(instance.card.clone());
        Ok(Present {
            publisher,
            registration: self.planes.discovery.register(instance).await?,
            _served: served,
        })
    }

    /// Tells and hears, until nothing is booked after a shutdown has begun.
    async fn take_part(&mut self, publisher: &mut dyn Publisher) {
        let mut members = members(&self.planes, self.endpoint.clone(), &self.registry);
        let (tasks, owner) = (self.tasks.clone(), self.owner.clone());
        let mut due = Instant::now();
        let mut is_closing = false;
        while !(is_closing && owner.is_idle()) {
            tokio::select! {
                Some(event) = members.next() => match event {
                    MemberEvent::Up(instance) | MemberEvent::Changed(instance) => self.meet(instance),
                    MemberEvent::Down(worker, DownCause::Draining) => self.see_off(OwnerId(worker.0)),
                    MemberEvent::Down(worker, _) => self.part(OwnerId(worker.0)),
                    MemberEvent::Unreached(..) | MemberEvent::UnreachedNoMore(_) => {}
                },
                Some((owner, heard)) = self.heard.next() => self.hear(owner, heard),
                Some((owner, answer)) = self.answers.next() => self.answered(owner, answer),
                () = owner.news() => due = due.min(Instant::now() + COLLECT),
                () = sleep_until(due) => {
                    tell(&owner, publisher).await;
                    due = Instant::now() + MARK;
                }
                _ = tasks.shutdown_begun(), if !is_closing => is_closing = true,
            }
            self.metrics.look(&self.books);
        }
    }

    /// Another frontend is there.
    fn meet(&mut self, instance: Instance) {
        let owner = owner_of(&instance);
        if owner == self.owner.id() {
            return;
        }
        self.part(owner);
        info!(frontend = owner.0, "frontend met");
        self.books.join(owner);
        let (heard, handle) = stream::abortable(listen(&self.planes, instance.clone()));
        self.heard.push(heard.boxed());
        let other = Other {
            instance,
            listening: handle,
            seeing_off: None,
            asked: None,
        };
        self.others.insert(owner, other);
    }

    /// Another frontend drains: what it has booked goes on, and it tells of that until it is gone.
    fn see_off(&mut self, owner: OwnerId) {
        if let Some(other) = self.others.get_mut(&owner) {
            let (gone, handle) = stream::abortable(see_off(&self.planes, &other.instance));
            self.heard.push(gone.boxed());
            other.seeing_off = Some(handle);
            info!(frontend = owner.0, "frontend drains");
        }
    }

    /// Another frontend is gone, and what it had booked with it.
    fn part(&mut self, owner: OwnerId) {
        if let Some(other) = self.others.remove(&owner) {
            other.listening.abort();
            if let Some(seeing_off) = other.seeing_off {
                seeing_off.abort();
            }
            self.books.leave(owner);
            info!(frontend = owner.0, "frontend gone");
        }
    }

    fn hear(&mut self, owner: OwnerId, heard: Heard) {
        let followed = match heard {
            Heard::Subscribed => {
                self.books.lagged(owner);
                Followed::NeedsSnapshot
            }
            Heard::Lagged => self.books.lagged(owner),
            Heard::Gone => return self.part(owner),
            Heard::Batch(batch) => match read_batch(&batch) {
                Ok(batch) => self.books.apply(owner, batch),
                Err(error) => {
                    let diagnostic = error.diagnostic.as_deref();
                    warn!(frontend = owner.0, %error, diagnostic, "bookings not understood");
                    self.books.lagged(owner)
                }
            },
        };
        if followed == Followed::NeedsSnapshot {
            self.ask(owner);
        }
    }

    /// Asks another frontend for all that it has booked; at most once in a while.
    fn ask(&mut self, owner: OwnerId) {
        let Some(other) = self.others.get_mut(&owner) else {
            return;
        };
        let now = Instant::now();
        let at = other.asked.map_or(now, |asked| now.max(asked + RETRY));
        other.asked = Some(at);
        self.metrics.repairs.inc();
        let (planes, instance) = (self.planes.clone(), other.instance.clone());
        self.answers.push(Box::pin(async move {
            sleep_until(at).await;
            (owner, fetch(&planes, &instance).await)
        }));
    }

    fn answered(&mut self, owner: OwnerId, answer: Result<BookingSnapshot, RequestError>) {
        match answer {
            Ok(snapshot) => {
                if self.books.restore(owner, snapshot) == Followed::NeedsSnapshot {
                    self.ask(owner);
                }
            }
            Err(error) => {
                let diagnostic = error.diagnostic.as_deref();
                debug!(frontend = owner.0, %error, diagnostic, "bookings not told");
                self.ask(owner);
            }
        }
    }
}

/// Tells the others what there is to tell, and how things stand then.
async fn tell(owner: &Owner, publisher: &mut dyn Publisher) {
    while let Some((batch, has_more)) = owner.next_batch(BATCH_HASHES) {
        publisher.publish(write_batch(batch));
        if !has_more {
            return;
        }
        yield_now().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
