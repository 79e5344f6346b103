//! Subscriptions over connections that end.

use bytes::Bytes;
use forebay_runtime::{
    EndpointId, Event, EventPlane as _, EventStream, Instance, Lagged, PlaneError, TcpConfig, Topic,
};
use forebay_testkit::FaultProxy;
use forebay_tokens::WorkerId;
use futures::StreamExt as _;

use crate::in_time;
use crate::process::Process;

fn instance(proxy: &FaultProxy) -> Instance {
    Instance {
        endpoint: EndpointId::new("test", "worker", "engine").unwrap(),
        worker: WorkerId(1),
        address: format!("tcp://{}/test/worker/engine/1", proxy.address()),
        card: Bytes::new(),
    }
}

async fn next(events: &mut EventStream) -> Result<Event, Lagged> {
    in_time(events.next()).await.unwrap()
}

#[tokio::test]
async fn a_subscription_outlives_its_publishers_process() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let topic = Topic::new("topic").unwrap();
    let client = Process::start(TcpConfig::default()).await;
    let first = Process::behind(&proxy, TcpConfig::default()).await;
    let publisher = instance(&proxy);
    let subscribed = client.plane.subscribe(&topic, &publisher);
    let (subscribed, publisher) = in_time(futures::future::join(
        subscribed,
        first.plane.publisher(&topic, WorkerId(1)),
    ))
    .await;
    let (mut events, mut publisher) = (subscribed.unwrap(), publisher.unwrap());
    publisher.publish(Bytes::from("one"));
    let event = next(&mut events).await.unwrap();
    assert_eq!(event.payload, "one");

    // A cut is nothing that a subscriber sees.
    proxy.cut();
    publisher.publish(Bytes::from("two"));
    let event = next(&mut events).await.unwrap();
    assert_eq!((event.stamp.sequence, event.payload), (1, "two".into()));

    // Another process of the same publisher: what was missed is told of, and its epoch is later.
    proxy.refuse();
    drop((publisher, first));
    let second = Process::behind(&proxy, TcpConfig::default()).await;
    let mut publisher = second.plane.publisher(&topic, WorkerId(1)).await.unwrap();
    proxy.pass();
    assert!(next(&mut events).await.is_err());
    publisher.publish(Bytes::from("three"));
    let later = next(&mut events).await.unwrap();
    assert_eq!(later.payload, "three");
    assert!(later.stamp.epoch > event.stamp.epoch);
}

#[tokio::test]
async fn who_cannot_be_reached_cannot_be_subscribed_to() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    proxy.refuse();
    let client = Process::start(TcpConfig::default()).await;
    let topic = Topic::new("topic").unwrap();
    let publisher = instance(&proxy);
    let subscribed = in_time(client.plane.subscribe(&topic, &publisher)).await;
    assert!(matches!(subscribed, Err(PlaneError::Unreachable(_))));
}
