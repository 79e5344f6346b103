//! What everyone may want to know.

mod in_process;
pub(crate) mod queue;
#[cfg(feature = "tcp")]
mod remote;

use bytes::Bytes;
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use in_process::InProcessEvents;
#[cfg(feature = "tcp")]
pub(crate) use remote::{EventsHandler, subscribe_over};

use crate::discovery::Instance;
use crate::names::Topic;
use crate::planes::PlaneError;

/// Which event this is: what shows a subscriber that it missed none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Whose event it is.
    pub publisher: WorkerId,
    /// The publisher's incarnation on this topic; a later one has a larger number.
    pub epoch: u64,
    /// Counts the events of an epoch from 0 without a gap.
    pub sequence: u64,
}

/// Something that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which it is.
    pub stamp: Stamp,
    /// What it says; the topic defines the form.
    pub payload: Bytes,
}

/// A subscriber was too slow, and does not get some events of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{missed} events were lost, because the subscriber is too slow")]
pub struct Lagged {
    /// How many, as far as is known; at least 1.
    pub missed: u64,
}

/// The events of a topic from the subscription on, in order for each publisher. It does not end.
///
/// [`Lagged`] stands where events are missing, and the stream goes on after it. A gap in the
/// sequence of a publisher, or an epoch that follows another, says the same of this publisher:
/// not every plane notices what it loses.
pub type EventStream = BoxStream<'static, Result<Event, Lagged>>;

/// Carries events from publishers to all who subscribed, with bounded memory: a slow subscriber
/// loses events and is told so, a publisher never waits.
///
/// Every implementation is held to its suite in `conformance` (a feature of this crate).
pub trait EventPlane: Send + Sync + 'static {
    /// A new incarnation of `publisher` on a topic.
    ///
    /// # Errors
    ///
    /// [`PlaneError`].
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>>;

    /// Subscribes to a topic of `publisher`'s, whether anyone publishes there or not. What is
    /// published after this has returned arrives, or its loss is noticed.
    ///
    /// A plane whose topics are everyone's gives the events of all who publish on the topic; one
    /// that connects to the publisher itself gives those of `publisher`'s process.
    ///
    /// # Errors
    ///
    /// [`PlaneError`].
    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>>;
}

/// One publisher's end of a topic. What it published still arrives when it is dropped.
pub trait Publisher: Send + 'static {
    /// The epoch of everything it publishes.
    fn epoch(&self) -> u64;

    /// Publishes to whoever has subscribed, and never waits: what the plane cannot take is lost,
    /// together with its number.
    fn publish(&mut self, payload: Bytes) -> Stamp;
}
