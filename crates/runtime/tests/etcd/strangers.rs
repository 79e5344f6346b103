//! Keys and leases that someone else has changed, and records that etcd does not take.

use etcd_client::Client;

use super::*;

/// The key of a worker's record.
fn key(worker: u64) -> String {
    format!("/forebay/v1/{}/{worker:016x}", endpoint())
}

async fn client(etcd: &Etcd) -> Client {
    Client::connect([etcd.address()], None).await.unwrap()
}

#[tokio::test]
async fn a_record_that_was_taken_away_or_written_over_comes_back() {
    let etcd = Etcd::start();
    let (owner, reader) = (Process::start(&etcd).await, Process::start(&etcd).await);
    let _registration = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = reader.watch().await;
    next(&mut watch).await;

    let mut client = client(&etcd).await;
    client.delete(key(1), None).await.unwrap();
    assert_eq!(next(&mut watch).await, InstanceEvent::Expired(WorkerId(1)));
    assert_eq!(next(&mut watch).await, put(1));

    client.put(key(1), "not a record", None).await.unwrap();
    in_time(async {
        while reader.list().await != [instance(1)] {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(owner.metric("forebay_discovery_leases_lost_total"), 0.0);
}

#[tokio::test]
async fn who_was_replaced_does_not_come_back() {
    let etcd = Etcd::start();
    let (first, second) = (Process::start(&etcd).await, Process::start(&etcd).await);
    let first_registration = first.discovery.register(instance(1)).await.unwrap();
    let moved = Instance {
        address: "elsewhere".to_owned(),
        ..instance(1)
    };
    let _second = second.discovery.register(moved.clone()).await.unwrap();
    let renewals = || first.metric("forebay_discovery_lease_renewals_total");
    let before = renewals();
    let _kept_alive = first.discovery.register(instance(2)).await.unwrap();
    until(|| renewals() >= before + 2.0).await;
    assert_eq!(second.list().await, [moved.clone(), instance(2)]);
    first_registration.deregister().await.unwrap();
    assert_eq!(second.list().await, [moved, instance(2)]);
}

#[tokio::test]
async fn a_lease_that_was_revoked_is_claimed_anew() {
    let etcd = Etcd::start();
    let owner = Process::start(&etcd).await;
    let _first = owner.discovery.register(instance(1)).await.unwrap();
    let mut client = client(&etcd).await;
    for lease in client.leases().await.unwrap().leases() {
        client.lease_revoke(lease.id()).await.unwrap();
    }
    // Whatever notices first, the renewal or this.
    let _second = in_time(owner.discovery.register(instance(2)))
        .await
        .unwrap();
    assert_eq!(owner.list().await, [instance(1), instance(2)]);
    assert_eq!(owner.metric("forebay_discovery_leases_lost_total"), 1.0);
    assert!(!owner.is_degraded(), "etcd was never away");
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_at_once_and_alone() {
    let etcd = Etcd::start();
    let owner = Process::start(&etcd).await;
    for mebibytes in [2, 4] {
        let large = Instance {
            card: Bytes::from(vec![1; mebibytes << 20]),
            ..instance(1)
        };
        // The process waits for etcd for as long as a test runs.
        let refused = owner.discovery.register(large).await.err().unwrap();
        assert!(matches!(refused, PlaneError::Refused(_)), "{refused:?}");
    }
    let _second = owner.discovery.register(instance(2)).await.unwrap();
    assert_eq!(owner.list().await, [instance(2)]);
    assert!(!owner.is_degraded(), "etcd was never away");
}

#[tokio::test]
async fn a_record_that_is_refused_leaves_the_one_before_it() {
    let etcd = Etcd::start();
    let (owner, reader) = (Process::start(&etcd).await, Process::start(&etcd).await);
    let mut watch = reader.watch().await;
    next(&mut watch).await;
    let refused = async || {
        let large = Instance {
            card: Bytes::from(vec![1; 2 << 20]),
            ..instance(1)
        };
        let refused = owner.discovery.register(large).await.err().unwrap();
        assert!(matches!(refused, PlaneError::Refused(_)), "{refused:?}");
    };
    let registration = owner.discovery.register(instance(1)).await.unwrap();
    assert_eq!(next(&mut watch).await, put(1));
    refused().await;
    // It lives on, and is still its owner's to take away.
    let renewals = || owner.metric("forebay_discovery_lease_renewals_total");
    let before = renewals();
    until(|| renewals() >= before + 2.0).await;
    assert_eq!(reader.list().await, [instance(1)]);
    registration.deregister().await.unwrap();
    assert_eq!(next(&mut watch).await, InstanceEvent::Removed(WorkerId(1)));

    let registration = owner.discovery.register(instance(1)).await.unwrap();
    assert_eq!(next(&mut watch).await, put(1));
    drop(registration);
    refused().await;
    assert_eq!(next(&mut watch).await, InstanceEvent::Removed(WorkerId(1)));
    assert_eq!(owner.metric("forebay_discovery_leases_lost_total"), 0.0);
}

#[tokio::test]
async fn a_user_who_may_not_write_is_told_so() {
    let etcd = Etcd::start();
    let mut client = client(&etcd).await;
    for user in ["root", "reader"] {
        client.user_add(user, "secret", None).await.unwrap();
    }
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("reads").await.unwrap();
    let all = etcd_client::Permission::read("/forebay/").with_prefix();
    client.role_grant_permission("reads", all).await.unwrap();
    client.user_grant_role("reader", "reads").await.unwrap();
    client.auth_enable().await.unwrap();

    let access = EtcdConfig {
        user: Some("reader".to_owned()),
        password: Some(forebay_runtime::Secret::new("secret")),
        ..EtcdConfig::default()
    };
    let reader = EtcdDiscoveryConfig {
        access,
        ..config(etcd.address())
    };
    let reader = Process::connect(reader).await.unwrap();
    assert_eq!(reader.list().await, []);
    let refused = reader.discovery.register(instance(1)).await.err().unwrap();
    let text = forebay_observability::ErrorChain(&refused).to_string();
    assert!(text.contains("permission denied"), "{text}");
}
