//! From NATS to the subscribers' queues, for all of them in one task.

use std::pin::pin;
use std::sync::{Arc, Weak};

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{AbortHandle, Abortable, BoxStream, SelectAll};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::assembly::Assembly;
use super::gaps::Gaps;
use super::message::Message;
use crate::event_plane::queue::Queue;
use crate::event_plane::{Event, Lagged};
use crate::nats::connection::NatsConnection;
use crate::nats::metrics::Metrics;

/// The messages of one subscription, each put into its queue when it is polled for.
pub(super) struct Feed {
    messages: BoxStream<'static, ()>,
    queue: Weak<Mutex<Queue>>,
}

impl Feed {
    /// The feed of a queue, which ends when the handle says so.
    pub(super) fn new(
        messages: Subscriber,
        queue: Arc<Mutex<Queue>>,
        metrics: Metrics,
    ) -> (Self, AbortHandle) {
        let mut inbox = Inbox {
            queue: queue.clone(),
            assembly: Assembly::default(),
            gaps: Gaps::default(),
            metrics,
        };
        let (handle, registration) = AbortHandle::new_pair();
        let feed = messages.map(move |message| inbox.take(message.payload));
        let feed = Self {
            messages: Abortable::new(feed, registration).boxed(),
            queue: Arc::downgrade(&queue),
        };
        (feed, handle)
    }
}

/// Feeds queues until there will be no more of them. After each absence of the server all of them are
/// told that something may be missing.
pub(super) async fn run(mut new_feeds: mpsc::Receiver<Feed>, connection: NatsConnection) {
    let mut feeds = SelectAll::new();
    let mut queues = Vec::new();
    let mut back = pin!(connection.back());
    loop {
        tokio::select! {
            new = new_feeds.recv() => match new {
                Some(Feed { messages, queue }) => {
                    feeds.push(messages);
                    queues.retain(|queue: &Weak<_>| queue.strong_count() > 0);
                    queues.push(queue);
                }
                None => return,
            },
            Some(()) = feeds.next(), if !feeds.is_empty() => (),
            () = &mut back => {
                queues.iter().filter_map(Weak::upgrade).for_each(|queue| {
                    push(&queue, [Err(Lagged { missed: 1 })]);
                });
                back.set(connection.back());
            }
        }
    }
}

/// Adds to a queue, and wakes its consumer.
fn push<const N: usize>(queue: &Mutex<Queue>, items: [Result<Event, Lagged>; N]) {
    let mut queue = queue.lock();
    let consumer = items
        .into_iter()
        .fold(None, |consumer, item| queue.push(item).or(consumer));
    drop(queue);
    if let Some(consumer) = consumer {
        consumer.wake();
    }
}

/// Where a subscription's messages go.
struct Inbox {
    queue: Arc<Mutex<Queue>>,
    assembly: Assembly,
    gaps: Gaps,
    metrics: Metrics,
}

impl Inbox {
    fn take(&mut self, bytes: Bytes) {
        self.metrics.received_bytes.inc_by(bytes.len() as u64);
        let Some(message) = Message::decode(bytes) else {
            return;
        };
        let Some((event, unsent)) = self.assembly.push(message) else {
            return;
        };
        match self.gaps.before(event.stamp, unsent) {
            None => {}
            Some(0) => push(&self.queue, [Ok(event)]),
            Some(missed) => {
                self.metrics.events_lost.inc_by(missed);
                push(&self.queue, [Err(Lagged { missed }), Ok(event)]);
            }
        }
    }
}
