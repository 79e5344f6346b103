//! From NATS to the subscribers' queues, for all of them in one task.

use std::sync::Arc;

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{AbortHandle, Abortable, BoxStream, SelectAll};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::assembly::Assembly;
use super::gaps::Gaps;
use super::message::Message;
use crate::event_plane::Lagged;
use crate::event_plane::queue::Queue;
use crate::nats::metrics::Metrics;

/// The messages of one subscription, each put into its queue when it is polled for.
pub(super) struct Feed(BoxStream<'static, ()>);

impl Feed {
    /// The feed of a queue, which ends when the handle says so.
    pub(super) fn new(
        messages: Subscriber,
        queue: Arc<Mutex<Queue>>,
        metrics: Metrics,
    ) -> (Self, AbortHandle) {
        let mut inbox = Inbox {
            queue,
            assembly: Assembly::default(),
            gaps: Gaps::default(),
            metrics,
        };
        let (handle, registration) = AbortHandle::new_pair();
        let feed = messages.map(move |message| inbox.take(message.payload));
        (Self(Abortable::new(feed, registration).boxed()), handle)
    }
}

/// Feeds queues until there will be no more of them.
pub(super) async fn run(mut new_feeds: mpsc::Receiver<Feed>) {
    let mut feeds = SelectAll::new();
    loop {
        tokio::select! {
            new = new_feeds.recv() => match new {
                Some(Feed(feed)) => feeds.push(feed),
                None => return,
            },
            Some(()) = feeds.next(), if !feeds.is_empty() => (),
        }
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
        let missed = self.gaps.before(event.stamp, unsent);
        let mut queue = self.queue.lock();
        let mut consumer = None;
        if missed > 0 {
            self.metrics.events_lost.inc_by(missed);
            consumer = queue.push(Err(Lagged { missed }));
        }
        let consumer = queue.push(Ok(event)).or(consumer);
        drop(queue);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }
}
