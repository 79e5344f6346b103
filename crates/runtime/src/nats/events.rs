//! The event plane over NATS.

mod assembly;
mod gaps;
mod message;
mod outbound;
mod reader;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::stream::AbortHandle;
use futures::{FutureExt as _, Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::outbound::{Line, Outbound};
use self::reader::Feed;
use super::connection::NatsConnection;
use crate::discovery::Instance;
use crate::event_plane::queue::Queue;
use crate::event_plane::{Event, EventPlane, EventStream, Lagged, Publisher, Stamp};
use crate::names::Topic;
use crate::planes::PlaneError;
use crate::tasks::{TaskHandle, TaskKind, Tasks};

/// What every topic's subject begins with.
const SUBJECT: &str = "forebay.ev";
/// Events that a subscriber may be behind.
const EVENTS: usize = 1_024;
/// Bytes of their payloads.
const BYTES: usize = 64 << 20;
/// How long a subscription may take to be accepted by the client.
const SUBSCRIBE: Duration = Duration::from_secs(5);
/// How long a subscription waits for what was published before it.
const DRAIN: Duration = Duration::from_secs(1);
/// Subscriptions on their way to the reader.
const NEW_FEEDS: usize = 64;

/// An event plane over NATS: each topic is the subject `forebay.ev.<topic>`. Clones are handles on
/// the same one.
///
/// A publisher never waits: up to 4,096 events and 64 MiB wait for NATS, and if there are more the
/// oldest are lost. A subscriber may be 1,024 events or 64 MiB behind. A payload that is larger
/// than a message of the server may be is sent in parts, up to 64 MiB; a larger one is lost.
///
/// While the server is away, publishers go on with their numbers, and subscribers hear nothing.
/// When it is back they are subscribed again, and are told [`Lagged`] at once, whether they missed
/// anything or not: it cannot be known before the next event.
///
/// An epoch is the time, in microseconds since 1970, at which its publisher was made, or one more
/// than the last of this plane. So a restarted process has later epochs, if the clock of its machine
/// was not set back; worker ids that are never used again do not need even that.
///
/// A user who is not allowed everything needs to publish and subscribe under `forebay.>` and
/// `_INBOX.>`.
#[derive(Clone, Debug)]
pub struct NatsEvents {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: NatsConnection,
    outbound: Arc<Outbound>,
    feeds: mpsc::Sender<Feed>,
    last_epoch: Mutex<u64>,
    /// The writer and the reader.
    tasks: [TaskHandle; 2],
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.cancel();
        }
    }
}

impl NatsEvents {
    /// Events over a connection. Two tasks of `tasks` carry them for as long as the plane, a
    /// publisher or a subscription lives.
    pub fn new(connection: &NatsConnection, tasks: &Tasks) -> Self {
        let outbound = Arc::new(Outbound::new(connection.metrics().clone()));
        let (feeds, new_feeds) = mpsc::channel(NEW_FEEDS);
        let write = outbound.clone().run(connection.clone());
        let tasks = [
            tasks.spawn(TaskKind::Critical, "nats_event_writer", write),
            tasks.spawn(
                TaskKind::Critical,
                "nats_event_reader",
                reader::run(new_feeds, connection.clone()),
            ),
        ];
        Self {
            shared: Arc::new(Shared {
                connection: connection.clone(),
                outbound,
                feeds,
                last_epoch: Mutex::new(0),
                tasks,
            }),
        }
    }
}

impl Shared {
    fn next_epoch(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since_1970.map_or(0, |time| time.as_micros() as u64);
        let mut last = self.last_epoch.lock();
        *last = now.max(*last + 1);
        *last
    }

    async fn subscribe(self: Arc<Self>, topic: &Topic) -> Result<Subscription, PlaneError> {
        let client = self.connection.client();
        if *self.connection.connected().borrow() {
            // So that nothing comes that was published here before; no harm if it does.
            let _ = timeout(DRAIN, self.outbound.drained()).await;
        }
        let subscribed = timeout(SUBSCRIBE, client.subscribe(subject(topic))).await;
        let messages = subscribed
            .map_err(|error| PlaneError::Unreachable(error.into()))?
            .map_err(|error| PlaneError::Unreachable(error.into()))?;
        let queue = Arc::new(Mutex::new(Queue::new(EVENTS, BYTES)));
        let metrics = self.connection.metrics().clone();
        let (feed, handle) = Feed::new(messages, queue.clone(), metrics);
        let subscription = Subscription {
            queue,
            handle,
            _shared: self.clone(),
        };
        let sent = self.feeds.send(feed).await;
        sent.map_err(|_| PlaneError::Unreachable("the process is shutting down".into()))?;
        self.connection.settle().await;
        Ok(subscription)
    }
}

fn subject(topic: &Topic) -> String {
    format!("{SUBJECT}.{topic}")
}

impl EventPlane for NatsEvents {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        async move {
            let publisher = NatsPublisher {
                shared: self.shared.clone(),
                line: Arc::new(Line::new(subject(topic).into())),
                next: Stamp {
                    publisher,
                    epoch: self.shared.next_epoch(),
                    sequence: 0,
                },
            };
            Ok(Box::new(publisher) as Box<dyn Publisher>)
        }
        .boxed()
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        _publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>> {
        async move { Ok(self.shared.clone().subscribe(topic).await?.boxed()) }.boxed()
    }
}

/// A subscriber's end.
struct Subscription {
    queue: Arc<Mutex<Queue>>,
    /// Ends the feed of the queue.
    handle: AbortHandle,
    _shared: Arc<Shared>,
}

impl Stream for Subscription {
    type Item = Result<Event, Lagged>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.lock().poll(context).map(Some)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

struct NatsPublisher {
    shared: Arc<Shared>,
    line: Arc<Line>,
    next: Stamp,
}

impl Publisher for NatsPublisher {
    fn epoch(&self) -> u64 {
        self.next.epoch
    }

    fn publish(&mut self, payload: Bytes) -> Stamp {
        let stamp = self.next;
        self.next.sequence += 1;
        self.shared.outbound.push(&self.line, stamp, payload);
        stamp
    }
}
