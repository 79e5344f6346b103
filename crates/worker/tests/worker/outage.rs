//! A discovery that is away, or refuses.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::Engine as _;
use forebay_engine::remote::RemoteEngine;
use forebay_runtime::{Discovery, EndpointId, Instance, PlaneError, Planes, Registration, Watch};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;

use crate::count;
use crate::deployment::{Deployment, request};
use crate::toy::in_time;

/// Takes no registration while it is away, and counts those that it refused.
struct Outage {
    behind: Arc<dyn Discovery>,
    is_away: watch::Sender<bool>,
    /// What it says then.
    why: fn(Box<dyn Error + Send + Sync>) -> PlaneError,
    refused: watch::Sender<usize>,
}

impl Outage {
    /// Of a deployment's discovery, away or not yet.
    fn of(
        deployment: &Deployment,
        is_away: bool,
        why: fn(Box<dyn Error + Send + Sync>) -> PlaneError,
    ) -> Arc<Self> {
        Arc::new(Self {
            behind: deployment.planes.discovery.clone(),
            is_away: watch::Sender::new(is_away),
            why,
            refused: watch::Sender::new(0),
        })
    }
}

impl Discovery for Outage {
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        if !*self.is_away.borrow() {
            return self.behind.register(instance);
        }
        self.refused.send_modify(|refused| *refused += 1);
        let why = (self.why)("away".into());
        async { Err(why) }.boxed()
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        self.behind.list(endpoint)
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        self.behind.watch(endpoint)
    }
}

#[tokio::test]
async fn a_worker_serves_before_discovery_takes_it() {
    let mut deployment = Deployment::new().await;
    let outage = Outage::of(&deployment, true, PlaneError::Unreachable);
    deployment.planes = Planes {
        discovery: outage.clone(),
        ..deployment.planes
    };
    let worker = deployment.start().await.unwrap();
    let handle = worker.handle().clone();
    assert!(!handle.is_registered() && !deployment.health.is_ready());
    let reason = deployment.health.report().conditions[0].reason.clone();
    assert_eq!(reason, "discovery cannot be reached");

    // Who knows it from elsewhere can use it.
    let instance = Instance {
        endpoint: crate::deployment::endpoint(),
        worker: handle.id(),
        address: handle.address().unwrap(),
        card: handle.card().encode(),
    };
    let remote = RemoteEngine::new(instance, &deployment.planes, &deployment.tasks).unwrap();
    assert_eq!(count(remote.generate(request(3)).await.unwrap()).await, 3);

    let mut refused = outage.refused.subscribe();
    in_time(refused.wait_for(|refused| *refused > 3))
        .await
        .unwrap();
    outage.is_away.send_replace(false);
    let found = deployment.found().await;
    assert_eq!(count(found.generate(request(3)).await.unwrap()).await, 3);
    in_time(deployment.health.ready()).await;
    assert!(handle.is_registered());

    drop(worker);
    deployment.removed().await;
}

#[tokio::test]
async fn a_worker_that_leaves_during_an_outage_does_not_come_back() {
    let mut deployment = Deployment::new().await;
    let outage = Outage::of(&deployment, true, PlaneError::Unreachable);
    deployment.planes.discovery = outage.clone();
    let worker = deployment.start().await.unwrap();
    let leaving = in_time(worker.leave()).await;
    outage.is_away.send_replace(false);
    assert!(in_time(leaving.drain()).await);
    let listed = outage.behind.list(&crate::deployment::endpoint()).await;
    assert_eq!(listed.unwrap(), []);
}

#[tokio::test]
async fn a_card_changes_during_an_outage_and_discovery_knows_it_afterwards() {
    let mut deployment = Deployment::new().await;
    let outage = Outage::of(&deployment, false, PlaneError::Unreachable);
    deployment.planes.discovery = outage.clone();
    let worker = deployment.start().await.unwrap();
    let found = deployment.found().await;
    let mut changes = found.card_changes();
    found.load();

    outage.is_away.send_replace(true);
    assert_eq!(worker.handle().update_card(|card| card.weight = 0.0), Ok(1));
    let card = in_time(changes.next()).await.unwrap();
    assert_eq!((card.weight, card.revision), (0.0, 1));
    let mut refused = outage.refused.subscribe();
    in_time(refused.wait_for(|refused| *refused > 2))
        .await
        .unwrap();
    // It is known to discovery by its card from before, and well.
    assert!(worker.handle().is_registered() && deployment.health.is_ready());
    assert_eq!(worker.handle().update_card(|card| card.weight = 2.0), Ok(2));

    outage.is_away.send_replace(false);
    let found = deployment.found().await;
    assert_eq!((found.card().weight, found.card().revision), (2.0, 2));
    drop(worker);
    deployment.removed().await;
}

#[tokio::test(start_paused = true)]
async fn a_card_that_discovery_refuses_costs_nothing() {
    let mut deployment = Deployment::new().await;
    let outage = Outage::of(&deployment, false, PlaneError::Refused);
    deployment.planes.discovery = outage.clone();
    let worker = deployment.start().await.unwrap();
    deployment.found().await;

    outage.is_away.send_replace(true);
    for (weight, revision) in [(0.5, 1), (0.0, 2)] {
        let changed = worker.handle().update_card(|card| card.weight = weight);
        assert_eq!(changed, Ok(revision));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(*outage.refused.borrow() as u64, revision, "asked once");
        assert!(worker.handle().is_registered() && deployment.health.is_ready());
    }
    outage.is_away.send_replace(false);
    assert_eq!(worker.handle().update_card(|card| card.weight = 2.0), Ok(3));
    let found = deployment.found().await;
    assert_eq!((found.card().weight, found.card().revision), (2.0, 3));
}

#[cfg(feature = "tcp")]
#[tokio::test]
async fn discovery_s_card_from_before_an_outage_is_good_also_for_an_engine_that_comes_back() {
    use forebay_observability::Registry;
    use forebay_runtime::{Health, RequestPlane as _, TcpConfig, TcpPlane};

    let mut deployment = Deployment::new().await;
    let outage = Outage::of(&deployment, false, PlaneError::Unreachable);
    let plane = async || {
        let (registry, health) = (Registry::new(), Health::new());
        let plane = TcpPlane::bind(TcpConfig::default(), &deployment.tasks, &registry, &health);
        plane.await.unwrap()
    };
    let (here, client) = (plane().await, plane().await);
    deployment.planes.discovery = outage.clone();
    deployment.planes.requests = Arc::new(here);
    let worker = deployment.start().await.unwrap();
    let known = deployment.put().await;

    outage.is_away.send_replace(true);
    assert_eq!(worker.handle().update_card(|card| card.weight = 0.5), Ok(1));
    deployment.toy.die();
    // Who uses it sees that.
    let remote = deployment.remote(known.clone());
    remote.generate(request(1)).await.err();
    deployment.removed().await;
    let mut refused = outage.refused.subscribe();
    let before = *refused.borrow();
    deployment.toy.revive();
    in_time(refused.wait_for(|refused| *refused > before))
        .await
        .unwrap();
    assert!(in_time(client.confirm(&known)).await.unwrap());
}
