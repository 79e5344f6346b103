use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use parking_lot::Mutex;

use super::queue::Queue;
use super::{Event, EventPlane, EventStream, Lagged, Publisher, Stamp};
use crate::discovery::Instance;
use crate::names::Topic;
use crate::planes::PlaneError;

/// Events that a subscriber may be behind.
const EVENTS: usize = 1024;
/// Bytes of their payloads.
const BYTES: usize = 64 << 20;

/// An event plane within a process. Clones are handles on the same one.
///
/// A subscriber may be 1,024 events or 64 MiB behind; then the oldest are lost. It costs memory for what it
/// has not read.
#[derive(Clone, Debug, Default)]
pub struct InProcessEvents {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The number of the next publisher, whatever its topic: so epochs grow.
    next_epoch: u64,
    /// While someone publishes or subscribes there.
    topics: HashMap<Topic, Weak<Channel>>,
}

/// A topic's subscribers.
#[derive(Debug, Default)]
struct Channel {
    subscribers: Mutex<Vec<Weak<Mutex<Queue>>>>,
}

impl InProcessEvents {
    /// Nobody publishes or subscribes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with epochs that begin with the time of day, in microseconds: for publishers whose
    /// subscribers outlive them in other processes.
    #[cfg(feature = "tcp")]
    pub(crate) fn since_epoch() -> Self {
        let plane = Self::new();
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        plane.shared.lock().next_epoch = u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2);
        plane
    }

    /// The events of a topic from now on.
    pub(super) fn subscription(&self, topic: &Topic) -> EventStream {
        let channel = self.shared.lock().channel(topic);
        let queue = Arc::new(Mutex::new(Queue::new(EVENTS, BYTES)));
        channel.subscribers.lock().push(Arc::downgrade(&queue));
        Subscription {
            queue,
            _channel: channel,
        }
        .boxed()
    }
}

impl Shared {
    fn channel(&mut self, topic: &Topic) -> Arc<Channel> {
        if let Some(channel) = self.topics.get(topic).and_then(Weak::upgrade) {
            return channel;
        }
        self.topics.retain(|_, channel| channel.strong_count() > 0);
        let channel = Arc::new(Channel::default());
        self.topics.insert(topic.clone(), Arc::downgrade(&channel));
        channel
    }
}

impl EventPlane for InProcessEvents {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        async move {
            let mut shared = self.shared.lock();
            let epoch = shared.next_epoch;
            shared.next_epoch += 1;
            let publisher = PublisherHere {
                channel: shared.channel(topic),
                next: Stamp {
                    publisher,
                    epoch,
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
        async move { Ok(self.subscription(topic)) }.boxed()
    }
}

struct Subscription {
    queue: Arc<Mutex<Queue>>,
    /// Who publishes later finds the same one.
    _channel: Arc<Channel>,
}

impl Stream for Subscription {
    type Item = Result<Event, Lagged>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.lock().poll(context).map(Some)
    }
}

struct PublisherHere {
    channel: Arc<Channel>,
    next: Stamp,
}

impl Publisher for PublisherHere {
    fn epoch(&self) -> u64 {
        self.next.epoch
    }

    fn publish(&mut self, payload: Bytes) -> Stamp {
        let stamp = self.next;
        self.next.sequence += 1;
        self.channel.subscribers.lock().retain(|subscriber| {
            let Some(queue) = subscriber.upgrade() else {
                return false;
            };
            let payload = payload.clone();
            let consumer = queue.lock().push(Ok(Event { stamp, payload }));
            if let Some(consumer) = consumer {
                consumer.wake();
            }
            true
        });
        stamp
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::EndpointId;

    crate::event_plane_conformance_tests!(InProcessEvents::new());

    #[tokio::test]
    async fn nothing_is_kept_of_topics_that_nobody_uses() {
        let plane = InProcessEvents::new();
        let instance = Instance {
            endpoint: EndpointId::new("a", "b", "c").unwrap(),
            worker: WorkerId(1),
            address: String::new(),
            card: Bytes::new(),
        };
        let topics = ["a", "b", "c"].map(|name| Topic::new(name).unwrap());
        for topic in &topics {
            drop(plane.publisher(topic, WorkerId(1)).await.unwrap());
            drop(plane.subscribe(topic, &instance).await.unwrap());
        }
        let subscription = plane.subscribe(&topics[0], &instance).await.unwrap();
        assert_eq!(plane.shared.lock().topics.len(), 1);
        let channel = plane.shared.lock().channel(&topics[0]);
        drop(subscription);
        let mut publisher = plane.publisher(&topics[0], WorkerId(1)).await.unwrap();
        publisher.publish(Bytes::new());
        assert!(channel.subscribers.lock().is_empty());
    }
}
