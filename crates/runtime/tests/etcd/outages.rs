//! etcd away, back, and back with another history.

use std::net::SocketAddr;

use etcd_client::Client;
use forebay_testkit::FaultProxy;
use futures::FutureExt as _;

use super::*;

#[tokio::test]
async fn the_last_known_stay_and_what_is_missing_comes_back() {
    let mut etcd = Etcd::start();
    let (owner, reader) = (Process::start(&etcd).await, Process::start(&etcd).await);
    let _first = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = reader.watch().await;
    next(&mut watch).await;

    etcd.kill();
    until(|| reader.is_degraded() && owner.is_degraded()).await;
    assert_eq!(reader.metric("forebay_discovery_connected"), 0.0);
    // The lease is over by the owner's clock, and nobody is told anything.
    until(|| owner.metric("forebay_discovery_leases_lost_total") >= 1.0).await;
    assert!(watch.next().now_or_never().is_none());
    assert!(reader.health.report().ready);

    etcd.restart();
    until(|| !reader.is_degraded() && !owner.is_degraded()).await;
    let _second = owner.discovery.register(instance(2)).await.unwrap();
    // Whether etcd has forgotten the first meanwhile or not, both are there in the end.
    assert_eq!(until_present(&mut watch, &[1], &[1, 2]).await, [0; 0]);
    assert_eq!(reader.list().await, [instance(1), instance(2)]);
}

#[tokio::test]
async fn after_a_restart_with_older_data_everyone_is_there() {
    let mut etcd = Etcd::start();
    let (owner, reader) = (Process::start(&etcd).await, Process::start(&etcd).await);
    let _first = owner.discovery.register(instance(1)).await.unwrap();
    let backup = etcd.backup();
    let _second = owner.discovery.register(instance(2)).await.unwrap();
    let mut watch = reader.watch().await;
    let both = vec![instance(1), instance(2)];
    assert_eq!(next(&mut watch).await, InstanceEvent::Present(both.clone()));

    // Its history goes back to where nothing was known of the second.
    etcd.restore(&backup);
    in_time(async {
        while reader.list().await != both {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let _third = owner.discovery.register(instance(3)).await.unwrap();
    loop {
        match next(&mut watch).await {
            InstanceEvent::Removed(worker) => panic!("nobody said goodbye: {worker:?}"),
            event if event == put(3) => break,
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_was_compacted_away_is_made_up_for_by_a_list() {
    let etcd = Etcd::start();
    let owner = Process::start(&etcd).await;
    let target: SocketAddr = etcd.address().parse().unwrap();
    let proxy = FaultProxy::to(target).unwrap();
    let reader = Process::connect(config(proxy.address().to_string()))
        .await
        .unwrap();
    let first = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = reader.watch().await;
    next(&mut watch).await;
    let resyncs = reader.metric("forebay_discovery_resyncs_total");

    proxy.refuse();
    until(|| reader.is_degraded()).await;
    first.deregister().await.unwrap();
    let _second = owner.discovery.register(instance(2)).await.unwrap();
    let mut client = Client::connect([etcd.address()], None).await.unwrap();
    let now = client.get("x", None).await.unwrap();
    let revision = now.header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    proxy.pass();

    let present = InstanceEvent::Present(vec![instance(2)]);
    assert_eq!(next(&mut watch).await, present);
    let made_up = reader.metric("forebay_discovery_resyncs_total") - resyncs;
    assert_eq!(made_up, 1.0);
}

#[tokio::test]
async fn a_watch_that_was_cut_goes_on_without_a_list() {
    let etcd = Etcd::start();
    let owner = Process::start(&etcd).await;
    let target: SocketAddr = etcd.address().parse().unwrap();
    let proxy = FaultProxy::to(target).unwrap();
    let reader = Process::connect(config(proxy.address().to_string()))
        .await
        .unwrap();
    let first = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = reader.watch().await;
    next(&mut watch).await;
    let resyncs = reader.metric("forebay_discovery_resyncs_total");

    proxy.refuse();
    until(|| reader.is_degraded()).await;
    let _second = owner.discovery.register(instance(2)).await.unwrap();
    first.deregister().await.unwrap();
    proxy.pass();
    assert_eq!(next(&mut watch).await, put(2));
    assert_eq!(next(&mut watch).await, InstanceEvent::Removed(WorkerId(1)));
    let now = reader.metric("forebay_discovery_resyncs_total");
    assert_eq!(now, resyncs);
}

#[tokio::test]
async fn silence_is_noticed() {
    let etcd = Etcd::start();
    let (owner, reader) = (Process::start(&etcd).await, Process::start(&etcd).await);
    let mut watch = reader.watch().await;
    next(&mut watch).await;
    etcd.pause();
    until(|| reader.is_degraded()).await;
    etcd.resume();
    until(|| !reader.is_degraded()).await;
    let _registration = owner.discovery.register(instance(1)).await.unwrap();
    assert_eq!(next(&mut watch).await, put(1));
}

#[tokio::test]
async fn a_registration_without_etcd_fails_in_time_and_leaves_nothing() {
    let mut etcd = Etcd::start();
    let config = EtcdDiscoveryConfig {
        connect_timeout: Duration::from_millis(300),
        ..config(etcd.address())
    };
    let owner = Process::connect(config).await.unwrap();
    etcd.kill();
    assert!(
        in_time(owner.discovery.register(instance(1)))
            .await
            .is_err()
    );
    assert!(in_time(owner.discovery.list(&endpoint())).await.is_err());
    assert!(in_time(owner.discovery.watch(&endpoint())).await.is_err());
    etcd.restart();
    let reader = Process::start(&etcd).await;
    let _second = loop {
        if let Ok(second) = in_time(owner.discovery.register(instance(2))).await {
            break second;
        }
    };
    assert_eq!(reader.list().await, [instance(2)]);
}
