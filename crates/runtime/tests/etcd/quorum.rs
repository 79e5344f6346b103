//! A cluster of three members, of which some are dead, silent or behind.

use etcd_client::Client;
use forebay_testkit::EtcdCluster;
use futures::FutureExt as _;

use super::*;

/// A time to live that no test outlasts: whoever is gone was lost otherwise.
const LONG: Duration = Duration::from_secs(600);

/// A process that knows these members.
async fn process(members: Vec<String>, ttl: Duration) -> Process {
    let config = EtcdDiscoveryConfig {
        members,
        ttl,
        ..config(String::new())
    };
    Process::connect(config).await.unwrap()
}

/// Which member leads.
async fn leader(etcd: &EtcdCluster) -> usize {
    for (index, address) in etcd.addresses().into_iter().enumerate() {
        let mut client = Client::connect([address], None).await.unwrap();
        let status = client.status().await.unwrap();
        if status.leader() == status.header().unwrap().member_id() {
            return index;
        }
    }
    panic!("nobody leads");
}

/// A member that does not lead.
async fn follower(etcd: &EtcdCluster) -> usize {
    (leader(etcd).await + 1) % etcd.members().len()
}

#[tokio::test]
async fn who_leads_is_killed_and_nobody_is_lost() {
    let mut etcd = EtcdCluster::start();
    let owner = process(etcd.addresses(), LONG).await;
    let reader = process(etcd.addresses(), LONG).await;
    let _first = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = reader.watch().await;
    let present = InstanceEvent::Present(vec![instance(1)]);
    assert_eq!(next(&mut watch).await, present);

    let leader = leader(&etcd).await;
    etcd.member_mut(leader).kill();
    let _second = in_time(owner.discovery.register(instance(2)))
        .await
        .unwrap();
    let event = next(&mut watch).await;
    let present = InstanceEvent::Present(vec![instance(1), instance(2)]);
    assert!(event == put(2) || event == present, "{event:?}");

    // The one that comes back has missed it.
    etcd.member_mut(leader).restart();
    let late = process(vec![etcd.members()[leader].address()], LONG).await;
    assert_eq!(late.list().await, [instance(1), instance(2)]);
    assert_eq!(next(&mut late.watch().await).await, present);
}

#[tokio::test]
async fn without_a_quorum_the_last_known_stay() {
    let etcd = EtcdCluster::start();
    let owner = process(etcd.addresses(), TTL).await;
    let reader = process(etcd.addresses(), TTL).await;
    // What it is connected to is well, and alone.
    let follower = follower(&etcd).await;
    let alone = process(vec![etcd.members()[follower].address()], TTL).await;
    let impatient = EtcdDiscoveryConfig {
        members: etcd.addresses(),
        connect_timeout: Duration::from_millis(300),
        ..config(String::new())
    };
    let impatient = Process::connect(impatient).await.unwrap();
    let _first = owner.discovery.register(instance(1)).await.unwrap();
    let present = InstanceEvent::Present(vec![instance(1)]);
    let mut watches = [reader.watch().await, alone.watch().await];
    for watch in &mut watches {
        assert_eq!(next(watch).await, present);
    }

    let others = etcd.members().iter().enumerate();
    let others = others.filter(|(index, _)| *index != follower);
    let others: Vec<_> = others.map(|(_, member)| member).collect();
    others.iter().for_each(|member| member.pause());
    until(|| owner.is_degraded() && reader.is_degraded() && alone.is_degraded()).await;
    let elsewhere = Instance {
        endpoint: EndpointId::new("forebay", "worker", "elsewhere").unwrap(),
        ..instance(3)
    };
    assert!(
        in_time(impatient.discovery.register(elsewhere))
            .await
            .is_err()
    );
    assert!(
        in_time(impatient.discovery.list(&endpoint()))
            .await
            .is_err()
    );
    for watch in &mut watches {
        assert!(watch.next().now_or_never().is_none(), "nothing is known");
    }
    assert!(reader.health.report().ready);

    others.iter().for_each(|member| member.resume());
    let _second = in_time(owner.discovery.register(instance(2)))
        .await
        .unwrap();
    for watch in &mut watches {
        assert_eq!(until_present(watch, &[1], &[1, 2]).await, [0; 0]);
    }
    until(|| !(owner.is_degraded() || reader.is_degraded() || alone.is_degraded())).await;
    assert_eq!(reader.list().await, [instance(1), instance(2)]);
}

#[tokio::test]
async fn a_member_that_falls_silent_does_not_keep_its_watchers_behind() {
    let etcd = EtcdCluster::start();
    let follower = follower(&etcd).await;
    let well = (0..etcd.members().len()).filter(|index| *index != follower);
    let well = well.map(|index| etcd.members()[index].address()).collect();
    let owner = process(well, LONG).await;
    let stuck = process(vec![etcd.members()[follower].address()], LONG).await;
    let first = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = stuck.watch().await;
    next(&mut watch).await;

    etcd.members()[follower].pause();
    let _second = owner.discovery.register(instance(2)).await.unwrap();
    first.deregister().await.unwrap();
    // Its watch is open, and says nothing.
    until(|| stuck.is_degraded()).await;
    assert!(watch.next().now_or_never().is_none());
    etcd.members()[follower].resume();
    until_present(&mut watch, &[1], &[2]).await;
    until(|| !stuck.is_degraded()).await;
}

#[tokio::test]
async fn who_knows_more_members_goes_to_another_one() {
    let etcd = EtcdCluster::start();
    let owner = process(etcd.addresses(), LONG).await;
    let readers = [
        process(etcd.addresses(), LONG).await,
        process(etcd.addresses(), LONG).await,
        process(etcd.addresses(), LONG).await,
    ];
    let mut watches = Vec::new();
    for reader in &readers {
        watches.push(reader.watch().await);
    }
    for watch in &mut watches {
        assert_eq!(next(watch).await, InstanceEvent::Present(vec![]));
    }
    etcd.members()[follower(&etcd).await].pause();
    let _first = in_time(owner.discovery.register(instance(1)))
        .await
        .unwrap();
    for watch in &mut watches {
        until_present(watch, &[], &[1]).await;
    }
}

#[tokio::test]
async fn what_a_member_has_compacted_meanwhile_is_listed() {
    let mut etcd = EtcdCluster::start();
    let follower = follower(&etcd).await;
    let owner = process(etcd.addresses(), LONG).await;
    let reader = process(vec![etcd.members()[follower].address()], LONG).await;
    let first = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = reader.watch().await;
    next(&mut watch).await;

    etcd.member_mut(follower).kill();
    until(|| reader.is_degraded()).await;
    let _second = in_time(owner.discovery.register(instance(2)))
        .await
        .unwrap();
    in_time(first.deregister()).await.unwrap();
    let client = client_beside(&etcd, follower).await;
    let now = client.kv_client().get("x", None).await.unwrap();
    let revision = now.header().unwrap().revision();
    client.kv_client().compact(revision, None).await.unwrap();
    etcd.member_mut(follower).restart();
    let present = InstanceEvent::Present(vec![instance(2)]);
    assert_eq!(next(&mut watch).await, present);
    assert_eq!(reader.metric("forebay_discovery_resyncs_total"), 1.0);
}

/// A client of a member that is not this one.
async fn client_beside(etcd: &EtcdCluster, not: usize) -> Client {
    let index = (not + 1) % etcd.members().len();
    let address = etcd.members()[index].address();
    Client::connect([address], None).await.unwrap()
}
