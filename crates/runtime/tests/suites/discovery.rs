use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use forebay_runtime::{
    Discovery, EndpointId, Instance, InstanceEvent, MemoryDiscovery, PlaneError, Registration,
    Watch,
};
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, future};
use parking_lot::Mutex;

use crate::catches;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    ForgetsTheCard,
    KeepsWhoIsDropped,
    ListsInAnyOrder,
    LooksBeforeItWatches,
    LosesChangesOfTheLate,
    MixesEndpoints,
    OldRegistrationRemovesTheNew,
    TellsOneWatcher,
}

/// The registration of each worker that counts.
type Current = Arc<Mutex<HashMap<WorkerId, Box<dyn Registration>>>>;

struct Buggy {
    inner: MemoryDiscovery,
    current: Current,
    watches: Mutex<usize>,
    bug: Bug,
}

fn buggy(bug: Bug) -> Buggy {
    Buggy {
        inner: MemoryDiscovery::new(),
        current: Current::default(),
        watches: Mutex::new(0),
        bug,
    }
}

impl Buggy {
    fn endpoint(&self, endpoint: &EndpointId) -> EndpointId {
        match self.bug {
            Bug::MixesEndpoints => EndpointId::new("a", "b", "c").unwrap(),
            _ => endpoint.clone(),
        }
    }
}

impl Discovery for Buggy {
    fn register(
        &self,
        mut instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        async move {
            instance.endpoint = self.endpoint(&instance.endpoint);
            if self.bug == Bug::ForgetsTheCard {
                instance.card.clear();
            }
            let worker = instance.worker;
            let registration = self.inner.register(instance).await?;
            match self.bug {
                Bug::KeepsWhoIsDropped => {
                    let kept = Kept(Some(registration));
                    Ok(Box::new(kept) as Box<dyn Registration>)
                }
                Bug::OldRegistrationRemovesTheNew => {
                    self.current.lock().insert(worker, registration);
                    Ok(Box::new(ByName(self.current.clone(), worker)) as Box<dyn Registration>)
                }
                _ => Ok(registration),
            }
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        async move {
            let mut list = self.inner.list(&self.endpoint(endpoint)).await?;
            if self.bug == Bug::ListsInAnyOrder {
                list.reverse();
            }
            Ok(list)
        }
        .boxed()
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        async move {
            let endpoint = self.endpoint(endpoint);
            let is_first = mem::replace(&mut *self.watches.lock(), 1) == 0;
            match self.bug {
                Bug::LooksBeforeItWatches => {
                    let present = self.inner.list(&endpoint).await?;
                    tokio::task::yield_now().await;
                    let changes = self.inner.watch(&endpoint).await?.skip(1);
                    let present = InstanceEvent::Present(present);
                    let present = futures::stream::iter([present]);
                    Ok(present.chain(changes).boxed())
                }
                Bug::LosesChangesOfTheLate => {
                    let watch = self.inner.watch(&endpoint).await?;
                    let mut is_begun = false;
                    let known = move |event: &InstanceEvent| {
                        let is_again = matches!(event, InstanceEvent::Present(_)) && is_begun;
                        is_begun = true;
                        future::ready(!is_again)
                    };
                    Ok(watch.filter(known).boxed())
                }
                Bug::TellsOneWatcher if !is_first => {
                    let watch = self.inner.watch(&endpoint).await?.take(1);
                    Ok(watch.chain(futures::stream::pending()).boxed())
                }
                _ => self.inner.watch(&endpoint).await,
            }
        }
        .boxed()
    }
}

/// Goes away when it is asked to, but not when it is dropped.
struct Kept(Option<Box<dyn Registration>>);

impl Registration for Kept {
    fn deregister(mut self: Box<Self>) -> BoxFuture<'static, Result<(), PlaneError>> {
        let registration = self.0.take().unwrap();
        registration.deregister()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        mem::forget(self.0.take());
    }
}

/// Takes whoever has the name away with it.
struct ByName(Current, WorkerId);

impl Registration for ByName {
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), PlaneError>> {
        future::ready(Ok(())).boxed()
    }
}

impl Drop for ByName {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

#[tokio::test(start_paused = true)]
async fn planted_bugs_are_caught() {
    catches!(
        discovery::lists_who_is_registered,
        buggy(Bug::ForgetsTheCard)
    );
    catches!(
        discovery::forgets_who_is_dropped,
        buggy(Bug::KeepsWhoIsDropped)
    );
    catches!(
        discovery::lists_who_is_registered,
        buggy(Bug::ListsInAnyOrder)
    );
    catches!(
        discovery::misses_no_change_between_present_and_changes,
        buggy(Bug::LooksBeforeItWatches)
    );
    catches!(
        discovery::tells_a_late_watcher_where_things_stand,
        buggy(Bug::LosesChangesOfTheLate)
    );
    catches!(discovery::keeps_endpoints_apart, buggy(Bug::MixesEndpoints));
    catches!(
        discovery::replaces_a_worker_that_registers_again,
        buggy(Bug::OldRegistrationRemovesTheNew)
    );
    catches!(discovery::watches_many_at_once, buggy(Bug::TellsOneWatcher));
}
