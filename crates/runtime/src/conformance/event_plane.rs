//! The contract of [`EventPlane`].

use bytes::Bytes;
use forebay_tokens::WorkerId;
use futures::{FutureExt as _, StreamExt as _};

use super::in_time;
use crate::{EndpointId, Event, EventPlane, EventStream, Instance, Lagged, Publisher, Topic};

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("a proper topic")
}

async fn publisher(plane: &dyn EventPlane, name: &str, worker: u64) -> Box<dyn Publisher> {
    let topic = topic(name);
    let publisher = in_time(plane.publisher(&topic, WorkerId(worker))).await;
    publisher.expect("a topic has publishers")
}

async fn subscribe(plane: &dyn EventPlane, name: &str) -> EventStream {
    let topic = topic(name);
    // A plane that connects to publishers is put through the suite with an address of its own.
    let instance = Instance {
        endpoint: EndpointId::new("suite", "worker", "engine").expect("proper names"),
        worker: WorkerId(1),
        address: String::new(),
        card: Bytes::new(),
    };
    let events = in_time(plane.subscribe(&topic, &instance)).await;
    events.expect("a topic has subscribers")
}

async fn next(events: &mut EventStream) -> Result<Event, Lagged> {
    let event = in_time(events.next()).await;
    event.expect("a subscription does not end")
}

async fn next_event(events: &mut EventStream) -> Event {
    next(events).await.expect("nothing was lost")
}

/// A numbered payload.
fn payload(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

/// A publisher's events arrive in order and once, numbered from 0.
pub async fn stamps_without_a_gap(plane: &dyn EventPlane) {
    let mut events = subscribe(plane, "topic").await;
    let mut publisher = publisher(plane, "topic", 7).await;
    let stamps: Vec<_> = (0..200).map(|n| publisher.publish(payload(n))).collect();
    for (number, stamp) in (0..).zip(stamps) {
        let event = next_event(&mut events).await;
        assert_eq!(event.stamp, stamp);
        assert_eq!(event.stamp.publisher, WorkerId(7));
        assert_eq!(event.stamp.epoch, publisher.epoch());
        assert_eq!(event.stamp.sequence, number);
        assert_eq!(event.payload, payload(number));
    }
}

/// A publisher's later incarnation has a larger epoch, and counts anew.
pub async fn orders_the_epochs_of_a_publisher(plane: &dyn EventPlane) {
    let mut events = subscribe(plane, "topic").await;
    let mut last = None;
    for _ in 0..3 {
        let mut publisher = publisher(plane, "topic", 7).await;
        publisher.publish(payload(0));
        let stamp = next_event(&mut events).await.stamp;
        assert_eq!(stamp.sequence, 0);
        assert!(last < Some(stamp.epoch), "epochs grow");
        last = Some(stamp.epoch);
    }
}

/// A late subscriber gets what is published from then on, and sees by the number that it is late.
pub async fn begins_with_the_subscription(plane: &dyn EventPlane) {
    let mut publisher = publisher(plane, "topic", 1).await;
    publisher.publish(payload(0));
    let mut events = subscribe(plane, "topic").await;
    publisher.publish(payload(1));
    let event = next_event(&mut events).await;
    assert_eq!(event.stamp.sequence, 1);
    assert_eq!(event.payload, payload(1));
}

/// Each subscriber gets every event, and one that leaves disturbs nobody.
pub async fn tells_every_subscriber(plane: &dyn EventPlane) {
    let mut subscribers = Vec::new();
    for _ in 0..8 {
        subscribers.push(subscribe(plane, "topic").await);
    }
    let mut publisher = publisher(plane, "topic", 1).await;
    publisher.publish(payload(0));
    subscribers.truncate(4);
    publisher.publish(payload(1));
    for events in &mut subscribers {
        for number in 0..2 {
            assert_eq!(next_event(events).await.payload, payload(number));
        }
    }
}

/// A topic's events reach its own subscribers only, and are numbered apart.
pub async fn keeps_topics_apart(plane: &dyn EventPlane) {
    let mut a = subscribe(plane, "topic.a").await;
    let mut ab = subscribe(plane, "topic.a.b").await;
    let mut publish_ab = publisher(plane, "topic.a.b", 1).await;
    let mut publish_a = publisher(plane, "topic.a", 1).await;
    publish_ab.publish(payload(1));
    publish_a.publish(payload(2));
    let event = next_event(&mut a).await;
    assert_eq!((event.stamp.sequence, event.payload), (0, payload(2)));
    let event = next_event(&mut ab).await;
    assert_eq!((event.stamp.sequence, event.payload), (0, payload(1)));
    assert!(a.next().now_or_never().is_none());
    assert!(ab.next().now_or_never().is_none());
}

/// Several publishers of a topic are numbered apart.
pub async fn carries_several_publishers(plane: &dyn EventPlane) {
    let mut events = subscribe(plane, "topic").await;
    let mut publishers = Vec::new();
    for worker in 0..3 {
        publishers.push(publisher(plane, "topic", worker).await);
    }
    for number in 0..10 {
        for publisher in &mut publishers {
            publisher.publish(payload(number));
        }
    }
    let mut expected = [0; 3];
    for _ in 0..30 {
        let Event { stamp, payload } = next_event(&mut events).await;
        let worker = usize::try_from(stamp.publisher.0).expect("a small number");
        assert_eq!(stamp.sequence, expected[worker]);
        assert_eq!(payload, self::payload(stamp.sequence));
        expected[worker] += 1;
    }
}

/// What was published arrives when its publisher is gone, and the subscription goes on.
pub async fn outlives_a_publisher(plane: &dyn EventPlane) {
    let mut events = subscribe(plane, "topic").await;
    let mut first = publisher(plane, "topic", 1).await;
    first.publish(payload(1));
    drop(first);
    let mut second = publisher(plane, "topic", 2).await;
    second.publish(payload(2));
    for worker in [1, 2] {
        let event = next_event(&mut events).await;
        assert_eq!(event.stamp.publisher, WorkerId(worker));
        assert_eq!(event.payload, payload(worker));
    }
}

/// More than any plane keeps for a subscriber that does not read.
const FLOOD: u64 = 300_000;

/// A subscriber that lost events learns of it, or can see it by their numbers, and goes on.
pub async fn tells_who_is_too_slow(plane: &dyn EventPlane) {
    let mut events = subscribe(plane, "topic").await;
    let mut publisher = publisher(plane, "topic", 1).await;
    for number in 0..FLOOD {
        publisher.publish(payload(number));
    }
    let mut expected = 0;
    let mut is_told = false;
    let mut missed = 0;
    while expected < FLOOD {
        match next(&mut events).await {
            Err(lagged) => {
                assert!(lagged.missed > 0);
                is_told = true;
            }
            Ok(event) => {
                assert_eq!(event.payload, payload(event.stamp.sequence));
                assert!(event.stamp.sequence >= expected, "order is kept");
                let gap = event.stamp.sequence - expected;
                assert!(gap == 0 || is_told, "a loss that nobody was told of");
                missed += gap;
                is_told = false;
                expected = event.stamp.sequence + 1;
            }
        }
    }
    assert!(missed > 0, "memory is bounded");
}

/// A subscriber that does not read holds up neither publisher nor other subscribers.
pub async fn waits_for_nobody(plane: &dyn EventPlane) {
    let _deaf = subscribe(plane, "topic").await;
    let mut events = subscribe(plane, "topic").await;
    let mut publisher = publisher(plane, "topic", 1).await;
    for number in 0..10_000 {
        publisher.publish(payload(number));
        assert_eq!(next_event(&mut events).await.stamp.sequence, number);
    }
}
