//! The contract of [`Discovery`].

use bytes::Bytes;
use forebay_tokens::WorkerId;
use futures::{FutureExt as _, StreamExt as _, future};

use super::in_time;
use crate::{Discovery, EndpointId, Instance, InstanceEvent, Registration, Watch};

fn endpoint(component: &str) -> EndpointId {
    EndpointId::new("suite", component, "engine").expect("proper names")
}

fn instance(component: &str, worker: u64, card: &'static str) -> Instance {
    Instance {
        endpoint: endpoint(component),
        worker: WorkerId(worker),
        address: format!("somewhere:{worker}"),
        card: Bytes::from_static(card.as_bytes()),
    }
}

async fn register(discovery: &dyn Discovery, instance: Instance) -> Box<dyn Registration> {
    let registration = in_time(discovery.register(instance)).await;
    registration.expect("an instance can be registered")
}

async fn deregister(registration: Box<dyn Registration>) {
    let done = in_time(registration.deregister()).await;
    done.expect("an instance can be deregistered");
}

async fn list(discovery: &dyn Discovery, component: &str) -> Vec<Instance> {
    let endpoint = endpoint(component);
    let listed = in_time(discovery.list(&endpoint)).await;
    listed.expect("instances can be listed")
}

async fn watch(discovery: &dyn Discovery, component: &str) -> Watch {
    let endpoint = endpoint(component);
    let watch = in_time(discovery.watch(&endpoint)).await;
    watch.expect("an endpoint can be watched")
}

async fn next(watch: &mut Watch) -> InstanceEvent {
    in_time(watch.next()).await.expect("a watch does not end")
}

/// What a watcher knows.
#[derive(Default)]
struct View(Vec<Instance>);

impl View {
    fn apply(&mut self, event: InstanceEvent) {
        match event {
            InstanceEvent::Present(instances) => self.0 = instances,
            InstanceEvent::Put(instance) => {
                self.0.retain(|known| known.worker != instance.worker);
                self.0.push(instance);
            }
            InstanceEvent::Removed(worker) | InstanceEvent::Expired(worker) => {
                self.0.retain(|known| known.worker != worker);
            }
        }
        self.0.sort_by_key(|known| known.worker);
    }

    async fn until(&mut self, watch: &mut Watch, expected: &[Instance]) {
        while self.0 != expected {
            self.apply(next(watch).await);
        }
    }
}

/// Waits for a list that follows a drop, which is not confirmed.
async fn listed(discovery: &dyn Discovery, component: &str, expected: &[Instance]) {
    let mut watch = watch(discovery, component).await;
    let mut view = View::default();
    view.apply(next(&mut watch).await);
    view.until(&mut watch, expected).await;
    assert_eq!(list(discovery, component).await, expected);
}

/// A list has every instance whole, in order.
pub async fn lists_who_is_registered(discovery: &dyn Discovery) {
    assert_eq!(list(discovery, "worker").await, []);
    let (first, second) = (instance("worker", 7, "a"), instance("worker", 3, ""));
    let _first = register(discovery, first.clone()).await;
    let _second = register(discovery, second.clone()).await;
    assert_eq!(list(discovery, "worker").await, [second, first]);
}

/// An instance is gone with its registration, dropped or given up.
pub async fn forgets_who_is_dropped(discovery: &dyn Discovery) {
    let first = register(discovery, instance("worker", 1, "a")).await;
    let second = register(discovery, instance("worker", 2, "b")).await;
    deregister(first).await;
    assert_eq!(
        list(discovery, "worker").await,
        [instance("worker", 2, "b")]
    );
    drop(second);
    listed(discovery, "worker", &[]).await;
}

/// The newest registration of a worker counts, and an older one takes nothing away with it.
pub async fn replaces_a_worker_that_registers_again(discovery: &dyn Discovery) {
    let mut watch = watch(discovery, "worker").await;
    assert_eq!(next(&mut watch).await, InstanceEvent::Present(vec![]));
    let old = register(discovery, instance("worker", 1, "old")).await;
    let expected = InstanceEvent::Put(instance("worker", 1, "old"));
    assert_eq!(next(&mut watch).await, expected);
    let new = register(discovery, instance("worker", 1, "new")).await;
    let expected = InstanceEvent::Put(instance("worker", 1, "new"));
    assert_eq!(next(&mut watch).await, expected);
    drop(old);
    let marker = register(discovery, instance("worker", 2, "")).await;
    let expected = InstanceEvent::Put(instance("worker", 2, ""));
    assert_eq!(next(&mut watch).await, expected, "the new one stays");
    assert_eq!(
        list(discovery, "worker").await,
        [instance("worker", 1, "new"), instance("worker", 2, "")]
    );
    deregister(new).await;
    assert_eq!(next(&mut watch).await, InstanceEvent::Removed(WorkerId(1)));
    drop(marker);
}

/// An endpoint knows nothing of another.
pub async fn keeps_endpoints_apart(discovery: &dyn Discovery) {
    let mut watch = watch(discovery, "prefill").await;
    let _decode = register(discovery, instance("decode", 1, "")).await;
    let _prefill = register(discovery, instance("prefill", 1, "p")).await;
    assert_eq!(
        list(discovery, "prefill").await,
        [instance("prefill", 1, "p")]
    );
    assert_eq!(list(discovery, "decode").await, [instance("decode", 1, "")]);
    let mut view = View::default();
    view.until(&mut watch, &[instance("prefill", 1, "p")]).await;
}

/// First who is there, then each change, in order.
pub async fn watches_from_the_present_on(discovery: &dyn Discovery) {
    let first = register(discovery, instance("worker", 1, "")).await;
    let mut watch = watch(discovery, "worker").await;
    let present = InstanceEvent::Present(vec![instance("worker", 1, "")]);
    assert_eq!(next(&mut watch).await, present);
    let second = register(discovery, instance("worker", 2, "")).await;
    let put = InstanceEvent::Put(instance("worker", 2, ""));
    assert_eq!(next(&mut watch).await, put);
    for (registration, worker) in [(first, 1), (second, 2)] {
        deregister(registration).await;
        let removed = InstanceEvent::Removed(WorkerId(worker));
        assert_eq!(next(&mut watch).await, removed);
    }
    assert!(
        watch.next().now_or_never().is_none(),
        "nothing else happened"
    );
}

/// Watches that begin in the middle of changes all come to the same end.
pub async fn misses_no_change_between_present_and_changes(discovery: &dyn Discovery) {
    const WORKERS: u64 = 20;
    let expected: Vec<_> = (0..WORKERS)
        .filter(|worker| worker % 2 == 1)
        .map(|worker| instance("worker", worker, ""))
        .collect();
    let change = async {
        let mut kept = Vec::new();
        for worker in 0..WORKERS {
            let registration = register(discovery, instance("worker", worker, "")).await;
            tokio::task::yield_now().await;
            if worker % 2 == 0 {
                deregister(registration).await;
            } else {
                kept.push(registration);
            }
        }
        kept
    };
    let look = async {
        let mut watches = Vec::new();
        for _ in 0..WORKERS {
            watches.push(watch(discovery, "worker").await);
            tokio::task::yield_now().await;
        }
        watches
    };
    let (_kept, watches) = future::join(change, look).await;
    for mut watch in watches {
        View::default().until(&mut watch, &expected).await;
    }
}

/// Who did not look for long still learns where things stand.
pub async fn tells_a_late_watcher_where_things_stand(discovery: &dyn Discovery) {
    let mut watch = watch(discovery, "worker").await;
    for worker in 0..500 {
        let registration = register(discovery, instance("worker", worker, "")).await;
        deregister(registration).await;
    }
    let _last = register(discovery, instance("worker", 500, "last")).await;
    let expected = [instance("worker", 500, "last")];
    let mut view = View::default();
    view.until(&mut watch, &expected).await;
}

/// Every watcher sees every change, and one that is dropped disturbs nobody.
pub async fn watches_many_at_once(discovery: &dyn Discovery) {
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(watch(discovery, "worker").await);
    }
    watches.truncate(25);
    let _registration = register(discovery, instance("worker", 1, "")).await;
    for watch in &mut watches {
        let mut view = View::default();
        view.until(watch, &[instance("worker", 1, "")]).await;
    }
}
