use std::future::pending;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use forebay_mux::events::{FollowerConfig, KvAnswer, KvAsk, KvFollower, KvUpdate};
use forebay_protocols::worker::{KvSyncRequest, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{Event, EventStream, Instance, Lagged, PlaneError, Planes, StreamRequest};
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::time::{Instant, sleep, sleep_until};

use super::frames::{ask, decode};
use super::kv_answer::{KvRepairs, receive};
use super::kv_frames::{Published, read_published, write_position};
use super::names::kv_topic;

/// The wait before the first new attempt to subscribe; each one after it waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What is to be done to know the KV caches of a worker of so many data-parallel ranks, for as long
/// as the stream is polled. It does not end.
pub(super) fn follow(
    planes: Planes,
    instance: Instance,
    ranks: u32,
    repairs: KvRepairs,
) -> BoxStream<'static, KvUpdate> {
    let seed = RandomState::new().hash_one(instance.worker);
    let following = Following {
        follower: KvFollower::new(FollowerConfig::default(), seed),
        started: Instant::now(),
        events: None,
        subscribing: None,
        wait: FIRST_WAIT,
        answer: None,
        planes,
        instance,
        ranks,
        repairs,
    };
    stream::unfold(following, |mut following| async {
        let update = following.next().await;
        Some((update, following))
    })
    .boxed()
}

/// The shell of a [`KvFollower`].
struct Following {
    follower: KvFollower,
    started: Instant,
    events: Option<EventStream>,
    /// While there are no events.
    subscribing: Option<BoxFuture<'static, Result<EventStream, PlaneError>>>,
    /// Before the next attempt to subscribe, if nothing has come by then.
    wait: Duration,
    /// To the question that was asked last.
    answer: Option<BoxFuture<'static, Result<KvAnswer, Error>>>,
    planes: Planes,
    instance: Instance,
    /// How many data-parallel ranks it has.
    ranks: u32,
    repairs: KvRepairs,
}

/// What happened next.
enum Happened {
    Event(Option<Result<Event, Lagged>>),
    Subscribed(Result<EventStream, PlaneError>),
    Answered(Result<KvAnswer, Error>),
    Due,
}

impl Following {
    async fn next(&mut self) -> KvUpdate {
        loop {
            if let Some(update) = self.follower.next_update() {
                return update;
            }
            // Who does not follow yet would miss what comes after the answer.
            if self.events.is_some() && self.answer.is_none() {
                let question = self.follower.ask(self.now());
                self.answer = question.map(|question| self.ask(question).boxed());
            }
            let happened = self.happens().await;
            self.take(happened);
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn happens(&mut self) -> Happened {
        if self.events.is_none() && self.subscribing.is_none() {
            self.subscribing = Some(self.subscribe(Duration::ZERO).boxed());
        }
        let due = match (&self.events, &self.answer) {
            (Some(_), None) => self.follower.next_timeout(),
            _ => None,
        };
        let due = async {
            match due {
                Some(due) => sleep_until(self.started + due).await,
                None => pending().await,
            }
        };
        let event = OptionFuture::from(self.events.as_mut().map(|events| events.next()));
        tokio::select! {
            biased;
            Some(answer) = OptionFuture::from(self.answer.as_mut()) => Happened::Answered(answer),
            Some(event) = event => Happened::Event(event),
            Some(events) = OptionFuture::from(self.subscribing.as_mut()) => {
                Happened::Subscribed(events)
            }
            () = due => Happened::Due,
        }
    }

    fn take(&mut self, happened: Happened) {
        let now = self.now();
        match happened {
            Happened::Event(Some(Ok(event))) => {
                self.wait = FIRST_WAIT;
                self.event(event);
            }
            Happened::Event(Some(Err(Lagged { .. }))) => self.follower.lagged(now),
            Happened::Event(None) => {
                self.events = None;
                self.subscribe_later();
            }
            Happened::Subscribed(Ok(events)) => {
                self.subscribing = None;
                self.events = Some(events);
                self.follower.lagged(now);
            }
            Happened::Subscribed(Err(_)) => self.subscribe_later(),
            Happened::Answered(answer) => {
                self.answer = None;
                match answer {
                    Ok(answer) => self.follower.answer(now, answer),
                    Err(error) if error.class == ErrorClass::BackendProtocol => {
                        self.follower.broken(now);
                    }
                    Err(_) => self.follower.failed(now),
                }
            }
            Happened::Due => {}
        }
    }

    fn event(&mut self, event: Event) {
        if event.stamp.publisher != self.instance.worker {
            return;
        }
        let now = self.now();
        match decode(event.payload).and_then(|message| read_published(message, self.ranks)) {
            Ok(Published::Batch(batch)) => self.follower.batch(now, batch),
            Ok(Published::Mark(mark)) => self.follower.mark(now, mark),
            // Whatever it was, it is missing.
            Err(_) => self.follower.lagged(now),
        }
    }

    fn subscribe_later(&mut self) {
        self.subscribing = Some(self.subscribe(self.wait).boxed());
        self.wait = LONGEST_WAIT.min(2 * self.wait);
    }

    fn subscribe(
        &self,
        after: Duration,
    ) -> impl Future<Output = Result<EventStream, PlaneError>> + Send + use<> {
        let (planes, instance) = (self.planes.clone(), self.instance.clone());
        async move {
            sleep(after).await;
            let topic = kv_topic(&instance.endpoint, instance.worker);
            planes.events.subscribe(&topic, &instance).await
        }
    }

    /// Asks the worker, when it is this follower's turn.
    fn ask(&self, question: KvAsk) -> impl Future<Output = Result<KvAnswer, Error>> + Send + use<> {
        let since = question.since.map(write_position);
        let request = StreamRequest::of(ask(Operation::KvSync(KvSyncRequest { since })));
        let (planes, repairs) = (self.planes.clone(), self.repairs.clone());
        let (address, ranks) = (self.instance.address.clone(), self.ranks);
        async move {
            let open = || planes.requests.open(&address, request);
            receive(open, ranks, &repairs).await
        }
    }
}
