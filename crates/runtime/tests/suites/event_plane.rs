use std::sync::Arc;

use bytes::Bytes;
use forebay_runtime::{
    Event, EventPlane, EventStream, InProcessEvents, Instance, PlaneError, Publisher, Stamp, Topic,
};
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, future, stream};
use parking_lot::Mutex;

use crate::catches;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    CountsFromOne,
    CountsPublishersTogether,
    EndsWithItsPublisher,
    HasOneEpoch,
    LosesInSilence,
    MixesTopics,
    RemembersTheLast,
    TellsTwice,
}

struct Buggy {
    inner: InProcessEvents,
    count: Arc<Mutex<u64>>,
    last: Arc<Mutex<Option<Event>>>,
    bug: Bug,
}

fn buggy(bug: Bug) -> Buggy {
    Buggy {
        inner: InProcessEvents::new(),
        count: Arc::default(),
        last: Arc::default(),
        bug,
    }
}

impl Buggy {
    fn topic(&self, topic: &Topic) -> Topic {
        match (self.bug, topic.as_str().split_once(".b")) {
            (Bug::MixesTopics, Some((before, _))) => Topic::new(before).unwrap(),
            _ => topic.clone(),
        }
    }
}

impl EventPlane for Buggy {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        async move {
            let inner = self.inner.publisher(&self.topic(topic), publisher).await?;
            let publisher = BuggyPublisher {
                inner,
                count: self.count.clone(),
                last: self.last.clone(),
                bug: self.bug,
            };
            Ok(Box::new(publisher) as Box<dyn Publisher>)
        }
        .boxed()
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>> {
        async move {
            let topic = self.topic(topic);
            let events = self.inner.subscribe(&topic, publisher).await?;
            let bug = self.bug;
            let changed = events.map(move |event| {
                event.map(|mut event| {
                    match bug {
                        Bug::CountsFromOne => event.stamp.sequence += 1,
                        Bug::HasOneEpoch => event.stamp.epoch = 0,
                        Bug::CountsPublishersTogether => {
                            let both: [u8; 8] = event.payload[..8].try_into().unwrap();
                            event.stamp.sequence = u64::from_le_bytes(both);
                            event.payload = event.payload.slice(8..);
                        }
                        _ => {}
                    }
                    event
                })
            });
            Ok(match bug {
                Bug::EndsWithItsPublisher => {
                    let goes_on = |event: &Result<Event, _>| {
                        let is_end = event.as_ref().is_ok_and(|event| event.payload == "end");
                        future::ready(!is_end)
                    };
                    changed.take_while(goes_on).boxed()
                }
                Bug::LosesInSilence => changed.filter(|event| future::ready(event.is_ok())).boxed(),
                Bug::RemembersTheLast => {
                    let last = self.last.lock().clone();
                    stream::iter(last.map(Ok)).chain(changed).boxed()
                }
                Bug::TellsTwice => changed
                    .flat_map(|event| stream::iter([event.clone(), event]))
                    .boxed(),
                _ => changed.boxed(),
            })
        }
        .boxed()
    }
}

struct BuggyPublisher {
    inner: Box<dyn Publisher>,
    count: Arc<Mutex<u64>>,
    last: Arc<Mutex<Option<Event>>>,
    bug: Bug,
}

impl Publisher for BuggyPublisher {
    fn epoch(&self) -> u64 {
        match self.bug {
            Bug::HasOneEpoch => 0,
            _ => self.inner.epoch(),
        }
    }

    fn publish(&mut self, payload: Bytes) -> Stamp {
        let mut count = self.count.lock();
        let stamp = match self.bug {
            Bug::CountsPublishersTogether => {
                let both = [&count.to_le_bytes(), &payload[..]].concat();
                self.inner.publish(both.into())
            }
            _ => self.inner.publish(payload.clone()),
        };
        *count += 1;
        *self.last.lock() = Some(Event { stamp, payload });
        stamp
    }
}

impl Drop for BuggyPublisher {
    fn drop(&mut self) {
        if self.bug == Bug::EndsWithItsPublisher {
            self.inner.publish(Bytes::from("end"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn planted_bugs_are_caught() {
    catches!(event_plane::stamps_without_a_gap, buggy(Bug::CountsFromOne));
    catches!(
        event_plane::carries_several_publishers,
        buggy(Bug::CountsPublishersTogether)
    );
    catches!(
        event_plane::outlives_a_publisher,
        buggy(Bug::EndsWithItsPublisher)
    );
    catches!(
        event_plane::orders_the_epochs_of_a_publisher,
        buggy(Bug::HasOneEpoch)
    );
    catches!(
        event_plane::tells_who_is_too_slow,
        buggy(Bug::LosesInSilence)
    );
    catches!(event_plane::keeps_topics_apart, buggy(Bug::MixesTopics));
    catches!(
        event_plane::begins_with_the_subscription,
        buggy(Bug::RemembersTheLast)
    );
    catches!(event_plane::tells_every_subscriber, buggy(Bug::TellsTwice));
}
