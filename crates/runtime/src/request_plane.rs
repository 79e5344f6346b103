//! Requests and their answers.

mod in_process;
mod peer;
pub(crate) mod services;
#[cfg(any(feature = "tcp", feature = "nats"))]
pub(crate) mod session;
#[cfg(feature = "tcp")]
mod tcp;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream, StreamExt as _};

pub use in_process::InProcessPlane;
pub use peer::{PeerState, PeerWatch};
#[cfg(feature = "tcp")]
pub use tcp::{BindError, TcpConfig, TcpPlane, TlsError};

use crate::discovery::Instance;
use crate::names::EndpointId;
use crate::planes::PlaneError;

/// The frames of an answer. It ends with the answer, or after an error.
pub type ResponseStream = BoxStream<'static, Result<Bytes, Error>>;

/// What a client sends on one stream.
pub struct StreamRequest {
    /// The first frame; it opens the stream.
    pub first: Bytes,
    /// What comes after it; its end is the client's half close. It is polled only as far as the
    /// server takes frames, so it may make them late.
    pub rest: BoxStream<'static, Bytes>,
    /// Completes when the client asks the server to end its answer soon, with what there is; pending
    /// for ever if it never does. The word takes no credit and outlives a cut connection; it is on
    /// its way when the answer is next polled. To end the stream at once, drop the answer.
    pub stop: BoxFuture<'static, ()>,
}

impl StreamRequest {
    /// A request of one frame.
    pub fn of(frame: Bytes) -> Self {
        Self {
            first: frame,
            rest: stream::empty().boxed(),
            stop: future::pending().boxed(),
        }
    }
}

impl fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamRequest")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// Answers the streams that clients open.
pub trait StreamHandler: Send + Sync + 'static {
    /// Begins an answer. It does no work that takes long: that belongs into the stream.
    ///
    /// The stream is polled only as far as the client takes frames. It is dropped when the client
    /// goes away, and that is all a handler learns of it: what it works on must end with it. A client
    /// that wants the answer's end soon says so by [`StreamRequest::stop`]; a handler may pass over
    /// that.
    ///
    /// A frame of which a part has been taken is to be read on, or its stream ended: parts of frames
    /// take memory, of which all streams of a client process have a bound together.
    ///
    /// A panic, here or in the stream, is this stream's own: between processes the client gets an
    /// internal error, within a process the panic is the caller's. The place of the stream is given
    /// back either way, so a drain does not wait for it.
    ///
    /// To poll it must not compute. Between processes, one task polls all answers to one client
    /// process and sends its heartbeats, so work that takes long belongs into tasks of its own; what
    /// holds up that task for over 50 ms is counted (`forebay_tcp_server_slow_polls_total`).
    fn handle(&self, request: StreamRequest) -> ResponseStream;
}

/// Carries streams of frames between clients and the workers that serve them.
///
/// Frames arrive in order and once, both ways. Each stream has its own credit: a slow consumer
/// holds up its own producer and nobody else's. A frame may be empty; how large it may be is the
/// plane's to say, and at least 64 MiB.
///
/// Every implementation is held to its suite in `conformance` (a feature of this crate).
pub trait RequestPlane: Send + Sync + 'static {
    /// Serves an endpoint as a worker; the plane decides under which address.
    ///
    /// # Errors
    ///
    /// [`PlaneError::InUse`], if this worker serves the endpoint already.
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>>;

    /// Opens a stream. What goes wrong is the answer's error: `Unavailable` if nobody serves the
    /// address or the server goes away (see [`worker_unreachable`] and [`worker_stopped`]), or whatever
    /// the handler says, with its class, reason and field.
    ///
    /// Nothing is promised to be sent before the answer is polled. Dropping the answer ends the
    /// stream on both sides.
    fn open(&self, address: &str, request: StreamRequest) -> ResponseStream;

    /// How things stand with what is served at `address`, whether anything is yet or not.
    ///
    /// While the watch lives, the plane looks after the peer: it keeps a connection where it has
    /// any, and notices silence.
    fn peer(&self, address: &str) -> PeerWatch;

    /// Whether what is served at the instance's address is that instance: the same worker of the same
    /// endpoint, which announced that card, now or before ([`Served::announce`]). Whoever can write
    /// to discovery can name any address; so this is asked of the peer itself.
    ///
    /// # Errors
    ///
    /// Those of [`RequestPlane::open`]: nothing is known then, which is also so as long as the
    /// instance has announced nothing.
    fn confirm(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, Error>>;

    /// Where this process listens for the plane, if it does: an open surface.
    fn listens_at(&self) -> Option<SocketAddr> {
        None
    }
}

/// An endpoint that is served. Dropping it stops that: streams that still run end with
/// [`worker_stopped`], and nobody can open any more.
pub trait Served: Send + Sync + 'static {
    /// Where clients find it: for [`RequestPlane::open`], and
    /// [`Instance::address`](crate::Instance::address).
    fn address(&self) -> &str;

    /// What the instance says about itself from now on; a record with a card that it never announced
    /// is not confirmed ([`RequestPlane::confirm`]). Whoever registers it announces the card before.
    /// What it said before, the last 63 cards, stays its own: discovery may be late, or away.
    fn announce(&self, card: Bytes);

    /// Tells clients that it takes nothing new for a while, or that it does again; see
    /// [`PeerState::Paused`]. That alone refuses nothing, and a drain is beyond it.
    fn set_paused(&self, is_paused: bool);

    /// Refuses new streams from now on with [`worker_stopped`], and waits until those that run
    /// have ended. New streams stay refused if the future is dropped.
    fn drain(&self) -> BoxFuture<'_, ()>;

    /// Ends what runs with an error, such as that of an engine that was lost: it tells a client more
    /// than [`worker_stopped`], which is how a worker ends that was asked to. What comes until this
    /// is dropped is refused with the same. The first error holds.
    fn fail(&self, error: Error);
}

/// Nobody serves the address: `Unavailable` with reason `worker_unreachable`.
pub fn worker_unreachable(address: &str) -> Error {
    let message = "the worker cannot be reached";
    Error::new(ErrorClass::Unavailable, "worker_unreachable", message)
        .with_diagnostic(format!("nothing is served at {address}"))
}

/// The worker was there, and its connection is lost: `Unavailable` with reason `worker_lost`.
pub fn worker_lost(address: &str) -> Error {
    let message = "the connection to the worker was lost";
    Error::new(ErrorClass::Unavailable, "worker_lost", message)
        .with_diagnostic(format!("{address} does not answer any more"))
}

/// The reason of [`worker_stopped`].
const WORKER_STOPPED: &str = "worker_stopped";

/// The server stops: `Unavailable` with reason `worker_stopped`.
pub fn worker_stopped(address: &str) -> Error {
    let message = "the worker is stopping";
    Error::new(ErrorClass::Unavailable, WORKER_STOPPED, message)
        .with_diagnostic(format!("{address} stops"))
}
