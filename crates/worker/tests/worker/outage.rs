//! A discovery that is away when a worker starts.

use std::sync::Arc;

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
    refused: watch::Sender<usize>,
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
        async { Err(PlaneError::Unreachable("away".into())) }.boxed()
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
    let outage = Arc::new(Outage {
        behind: deployment.planes.discovery.clone(),
        is_away: watch::Sender::new(true),
        refused: watch::Sender::new(0),
    });
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
    let outage = Arc::new(Outage {
        behind: deployment.planes.discovery.clone(),
        is_away: watch::Sender::new(true),
        refused: watch::Sender::new(0),
    });
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
    let outage = Arc::new(Outage {
        behind: deployment.planes.discovery.clone(),
        is_away: watch::Sender::new(false),
        refused: watch::Sender::new(0),
    });
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
