//! What becomes of the instances of a process that does not say goodbye.

use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::*;

/// A process that can be stopped: what it does, it does on a thread of its own.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn who_dies_expires() {
    let etcd = Etcd::start();
    let reader = Process::start(&etcd).await;
    let mut watch = reader.watch().await;
    assert_eq!(next(&mut watch).await, InstanceEvent::Present(vec![]));

    let address = etcd.address();
    thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(async {
            let owner = Process::connect(config(address)).await.unwrap();
            let registration = owner.discovery.register(instance(1)).await.unwrap();
            // Nothing of it runs any more.
            std::mem::forget(registration);
        });
        runtime.shutdown_background();
    });
    assert_eq!(next(&mut watch).await, put(1));
    assert_eq!(next(&mut watch).await, InstanceEvent::Expired(WorkerId(1)));
    assert_eq!(reader.list().await, []);
}

#[tokio::test]
async fn who_was_stopped_for_long_registers_again() {
    let etcd = Etcd::start();
    let reader = Process::start(&etcd).await;
    let mut watch = reader.watch().await;
    assert_eq!(next(&mut watch).await, InstanceEvent::Present(vec![]));

    let address = etcd.address();
    let (resume, is_resumed) = mpsc::channel();
    let (end, is_ended) = tokio::sync::oneshot::channel();
    let owner = thread::spawn(move || {
        let runtime = runtime();
        let (owner, registration) = runtime.block_on(async {
            let owner = Process::connect(config(address)).await.unwrap();
            let registration = owner.discovery.register(instance(1)).await.unwrap();
            (owner, registration)
        });
        is_resumed.recv().unwrap();
        runtime.block_on(async {
            is_ended.await.unwrap();
            registration.deregister().await.unwrap();
        });
        owner.metric("forebay_discovery_leases_lost_total")
    });
    assert_eq!(next(&mut watch).await, put(1));
    assert_eq!(next(&mut watch).await, InstanceEvent::Expired(WorkerId(1)));
    resume.send(()).unwrap();
    assert_eq!(next(&mut watch).await, put(1));
    end.send(()).unwrap();
    assert_eq!(next(&mut watch).await, InstanceEvent::Removed(WorkerId(1)));
    assert_eq!(owner.join().unwrap(), 1.0);
}

#[tokio::test]
async fn who_lives_is_kept() {
    let etcd = Etcd::start();
    let owner = Process::start(&etcd).await;
    let _registration = owner.discovery.register(instance(1)).await.unwrap();
    let mut watch = owner.watch().await;
    next(&mut watch).await;
    // Several times to live.
    until(|| owner.metric("forebay_discovery_lease_renewals_total") >= 8.0).await;
    let _marker = owner.discovery.register(instance(2)).await.unwrap();
    assert_eq!(next(&mut watch).await, put(2), "nothing happened meanwhile");
    assert_eq!(owner.metric("forebay_discovery_leases_lost_total"), 0.0);
    assert_eq!(owner.metric("forebay_discovery_instances"), 2.0);
    assert_eq!(owner.metric("forebay_discovery_connected"), 1.0);
}
