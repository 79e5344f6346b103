use std::time::Duration;

use bytes::Bytes;
use forebay_observability::ErrorChain;
use forebay_router::OwnerId;
use forebay_runtime::{EndpointId, EventStream, Instance, PeerState, Planes, Topic};
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::future;
use futures::stream::{self, BoxStream};
use tokio::time::sleep;
use tracing::{debug, warn};

/// The wait before another frontend's topic is subscribed to again, where that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Where a frontend publishes its batches.
pub(super) fn bookings_topic(endpoint: &EndpointId, frontend: WorkerId) -> Topic {
    let topic = endpoint.topic("bookings", frontend);
    topic.expect("a proper name makes a proper topic")
}

/// What comes of another frontend.
pub(super) enum Heard {
    /// Its batches come from now on, and nothing is known of those before.
    Subscribed,
    Batch(Bytes),
    /// Some batches did not come.
    Lagged,
    /// It drained, and has ended.
    Gone,
}

/// What comes of another frontend, for as long as it is polled.
pub(super) fn listen(planes: &Planes, instance: Instance) -> BoxStream<'static, (OwnerId, Heard)> {
    let owner = owner_of(&instance);
    let listening = Listening {
        planes: planes.clone(),
        instance,
        events: None,
    };
    stream::unfold(listening, move |mut listening| async move {
        let heard = listening.next().await;
        Some(((owner, heard), listening))
    })
    .boxed()
}

/// The end of a frontend that drains, as its connection tells: discovery has nothing more to say of
/// who is not to be asked any more.
pub(super) fn see_off(
    planes: &Planes,
    instance: &Instance,
) -> BoxStream<'static, (OwnerId, Heard)> {
    let owner = owner_of(instance);
    let states = planes.requests.peer(&instance.address);
    let ends = states.filter(|state| future::ready(*state == PeerState::Lost));
    ends.take(1).map(move |_| (owner, Heard::Gone)).boxed()
}

/// A frontend books as who it is in discovery.
pub(super) fn owner_of(instance: &Instance) -> OwnerId {
    OwnerId(instance.worker.0)
}

struct Listening {
    planes: Planes,
    instance: Instance,
    events: Option<EventStream>,
}

impl Listening {
    async fn next(&mut self) -> Heard {
        loop {
            let Some(events) = &mut self.events else {
                self.subscribe().await;
                return Heard::Subscribed;
            };
            match events.next().await {
                Some(Ok(event)) => return Heard::Batch(event.payload),
                Some(Err(_)) => return Heard::Lagged,
                None => self.events = None,
            }
        }
    }

    async fn subscribe(&mut self) {
        let topic = bookings_topic(&self.instance.endpoint, self.instance.worker);
        let mut is_first = true;
        loop {
            let events = self.planes.events.subscribe(&topic, &self.instance).await;
            match events {
                Ok(events) => {
                    self.events = Some(events);
                    return;
                }
                Err(error) => {
                    let frontend = self.instance.worker.0;
                    match std::mem::take(&mut is_first) {
                        true => warn!(frontend, error = %ErrorChain(&error), "frontend not heard"),
                        false => {
                            debug!(frontend, error = %ErrorChain(&error), "frontend not heard")
                        }
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }
}
