//! Who is there.

mod board;
#[cfg(feature = "etcd")]
mod etcd;
mod file;
mod members;
mod memory;
mod metrics;
mod record;
mod unreached;

use bytes::Bytes;
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

#[cfg(feature = "etcd")]
pub use etcd::{EtcdDiscovery, EtcdDiscoveryConfig};
pub use file::{FileConfig, FileDiscovery};
pub use members::{DownCause, MemberEvent, members};
pub use memory::MemoryDiscovery;
#[cfg(any(feature = "tcp", feature = "nats"))]
pub(crate) use record::record as instance_record;

use crate::names::EndpointId;
use crate::planes::PlaneError;

/// One worker behind an endpoint, as everyone else knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What it offers.
    pub endpoint: EndpointId,
    /// Who it is.
    pub worker: WorkerId,
    /// Where it is served: what [`Served::address`](crate::Served::address) said.
    pub address: String,
    /// What it says about itself; the endpoint defines the form.
    pub card: Bytes,
}

/// A change of who is behind an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceEvent {
    /// Everyone who is there now, in the order of their workers. The first event of a watch, and
    /// again whenever changes were missed: who is not in it is gone.
    Present(Vec<Instance>),
    /// An instance came, or replaced the one of the same worker.
    Put(Instance),
    /// The instance of this worker said goodbye.
    Removed(WorkerId),
    /// The record of this worker's instance is gone without a goodbye: its lease ended. It may
    /// still be serving, so that this is no more than a hint while the worker can be reached.
    Expired(WorkerId),
}

/// The changes of who is behind an endpoint, for as long as it is not dropped.
///
/// An outage of what discovery stands on does not end it: it is silent, and goes on with
/// [`InstanceEvent::Present`]. Meanwhile the last known instances are the best that is known.
pub type Watch = BoxStream<'static, InstanceEvent>;

/// Finds the instances of an endpoint.
///
/// Every implementation is held to its suite in `conformance` (a feature of this crate).
pub trait Discovery: Send + Sync + 'static {
    /// Makes an instance known for as long as the registration lives. It replaces what is
    /// registered for the same endpoint and worker.
    ///
    /// # Errors
    ///
    /// [`PlaneError`].
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>>;

    /// Who is there now, in the order of their workers.
    ///
    /// # Errors
    ///
    /// [`PlaneError`].
    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>>;

    /// Who is there, and every change of it: nothing happens unseen between the two. Changes of
    /// one worker that follow each other quickly may be told as one, and a consumer that is far
    /// behind is told anew who is present.
    ///
    /// # Errors
    ///
    /// [`PlaneError`].
    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>>;
}

/// A registered instance. Dropping it makes the instance unknown, soon and unconfirmed; nothing
/// happens if another registration has replaced it.
pub trait Registration: Send + Sync + 'static {
    /// Makes the instance unknown, and waits until that is so.
    ///
    /// # Errors
    ///
    /// [`PlaneError`]; the instance is then forgotten when its lease ends.
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), PlaneError>>;
}
