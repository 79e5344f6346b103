use std::fmt;
use std::future::pending;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::events::{FollowerConfig, KvAnswer, KvAsk, KvFollower, KvUpdate};
use forebay_protocols::worker::{self, KvSyncRequest, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{
    Event, EventStream, Instance, Lagged, PlaneError, Planes, ResponseStream, StreamRequest,
};
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::frames::{ask, broken, decode};
use super::kv_frames::{
    Published, read_batch, read_events, read_mark, read_published, write_position,
};
use super::names::kv_topic;

/// The wait before the first new attempt to subscribe; each one after it waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long a worker may take for the next part of its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What a worker's answer may have in bytes: a snapshot of ten million blocks has less.
const MOST_ANSWER_BYTES: usize = 512 << 20;
/// What is counted for a frame beside its bytes: small frames are not without end either.
const FRAME_BYTES: usize = 64;

/// Bounds how many workers are asked at a time for what is missing of their KV events, by all who
/// follow with clones of one of these. Others wait for their turn.
#[derive(Clone)]
pub struct KvRepairs(Arc<Semaphore>);

impl KvRepairs {
    /// At most `limit` at a time, at least 1.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit.max(1))))
    }
}

impl Default for KvRepairs {
    /// At most 16.
    fn default() -> Self {
        Self::new(16)
    }
}

impl fmt::Debug for KvRepairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KvRepairs")
            .field(&self.0.available_permits())
            .finish()
    }
}

/// What is to be done to know the KV caches of a worker of so many data-parallel ranks, for as long as the stream is polled. It does not
/// end.
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
            let turn = repairs.0.acquire().await;
            let _turn = turn.expect("the semaphore is never closed");
            let frames = planes.requests.open(&address, request);
            Answer::new(frames, ranks, MOST_ANSWER_BYTES).read().await
        }
    }
}

/// A worker's answer on its way.
struct Answer {
    frames: ResponseStream,
    ranks: u32,
    /// How much more may come.
    bytes_left: usize,
}

impl Answer {
    fn new(frames: ResponseStream, ranks: u32, most_bytes: usize) -> Self {
        Self {
            frames,
            ranks,
            bytes_left: most_bytes,
        }
    }

    async fn read(mut self) -> Result<KvAnswer, Error> {
        let head = self.next().await?;
        let head = head.ok_or_else(|| broken("an answer without a frame"))?;
        let head: worker::KvSync = decode(head)?;
        let mark = read_mark(head.mark)?;
        if head.is_snapshot {
            let mut parts = Vec::new();
            while let Some(frame) = self.next().await? {
                parts.push(read_events(decode(frame)?, self.ranks)?);
            }
            return Ok(KvAnswer::Snapshot { mark, parts });
        }
        let mut batches = Vec::new();
        while let Some(frame) = self.next().await? {
            batches.push(read_batch(decode(frame)?, self.ranks)?);
        }
        Ok(KvAnswer::Range { mark, batches })
    }

    /// The next frame, if there is one.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let frame = timeout(ANSWER_LIMIT, self.frames.next()).await;
        let frame = frame.map_err(|_| late())?.transpose()?;
        let Some(frame) = frame else {
            return Ok(None);
        };
        let left = self.bytes_left.checked_sub(frame.len() + FRAME_BYTES);
        self.bytes_left = left.ok_or_else(too_large)?;
        Ok(Some(frame))
    }
}

fn late() -> Error {
    let message = "the worker takes too long to tell what it has cached";
    Error::new(ErrorClass::Deadline, "kv_sync_deadline", message)
}

fn too_large() -> Error {
    let message = "the worker tells more than it can have cached";
    Error::new(ErrorClass::BackendProtocol, "kv_sync_too_large", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::frames::encode;
    use super::*;

    fn head(is_snapshot: bool) -> Bytes {
        let mark = Some(worker::KvMark::default());
        encode(&worker::KvSync { mark, is_snapshot })
    }

    #[tokio::test]
    async fn an_answer_without_end_is_refused() {
        for is_snapshot in [true, false] {
            let part = encode(&worker::KvEventBatch {
                mark: Some(worker::KvMark::default()),
                ..Default::default()
            });
            let parts = stream::repeat(part).map(Ok);
            let frames = stream::iter([Ok(head(is_snapshot))]).chain(parts);
            let answer = Answer::new(frames.boxed(), 1, 1 << 16).read().await;
            assert_eq!(answer.unwrap_err().reason, "kv_sync_too_large");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_arrives_and_a_silent_one_does_not() {
        let part = encode(&worker::KvEventBatch::default());
        let frames = stream::iter(vec![Ok(head(true)), Ok(part.clone()), Ok(part)]);
        let slow = frames.then(|frame| async {
            sleep(ANSWER_LIMIT / 2).await;
            frame
        });
        let answer = Answer::new(slow.boxed(), 1, 1 << 16).read().await.unwrap();
        assert!(matches!(answer, KvAnswer::Snapshot { parts, .. } if parts.len() == 2));
        let silent = Answer::new(stream::pending().boxed(), 1, 1 << 16);
        assert_eq!(silent.read().await.unwrap_err().reason, "kv_sync_deadline");
    }
}
