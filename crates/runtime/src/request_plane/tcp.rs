//! Requests and events over TCP.

mod address;
mod config;
mod dial;
mod server;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use forebay_mux::session::Incarnation;
use forebay_observability::Registry;
use forebay_protocols::Error;
use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::TcpListener;

pub use config::TcpConfig;
pub use tls::TlsError;

use address::{Address, Process};
use dial::TcpDialler;
use server::Server;
use tls::{Tls, renew};

use super::services::Services;
use super::session::{
    Answer, CONFIRM_TARGET, Carrier, ConfirmHandler, EVENTS_TARGET, Metrics, PEER_TARGET,
    PeerHandler, Sessions,
};
use super::{PeerWatch, RequestPlane, ResponseStream, Served, StreamHandler, StreamRequest};
use crate::discovery::Instance;
use crate::event_plane::{
    EventPlane, EventStream, EventsHandler, InProcessEvents, Publisher, subscribe_over,
};
use crate::health::Health;
use crate::names::{EndpointId, Topic};
use crate::planes::PlaneError;
use crate::random::random;
use crate::tasks::{TaskHandle, TaskKind, Tasks};

/// The request plane and the event plane over TCP. Clones are handles on the same.
///
/// A process has one listener for everything it serves, and one connection to each process that it
/// talks to, however many streams: requests, subscriptions, watches. Streams belong to a *session*
/// that outlives a cut connection for the grace of [`TcpConfig`]: they wait, and go on over a new
/// connection, with nothing lost and nothing twice. A peer that is silent for longer than
/// [`TcpConfig::silence`], or whose connection is refused, is lost at once.
///
/// Addresses are `tcp://HOST:PORT/NAMESPACE/COMPONENT/ENDPOINT/WORKER`, with `?identity=NAME` under
/// TLS: whoever connects takes only a server whose certificate is for that name, and has one of the
/// names that may be members ([`names`](crate::PeerTlsConfig::names)). The address is the word of
/// whoever wrote the record; the peer is asked whether that is its own ([`RequestPlane::confirm`]).
///
/// Events come from who publishes them: a subscription is a stream from the publisher's process. The
/// epochs of publishers begin with the time of day at the start of their process, in microseconds,
/// so that those of a later process are larger wherever clocks go forward between the two.
///
/// Metrics: `forebay_tcp_client_*` for what this process opens, `forebay_tcp_server_*` for what it
/// serves.
#[derive(Clone)]
pub struct TcpPlane {
    inner: Arc<Inner>,
}

struct Inner {
    client: Arc<Sessions<TcpDialler>>,
    services: Services,
    events: InProcessEvents,
    tasks: Tasks,
    own: Process,
    local: SocketAddr,
    limit_bytes: usize,
    listener: TaskHandle,
    /// Under TLS.
    renewal: Option<TaskHandle>,
    _internal: [Box<dyn Served>; 3],
}

/// Why there is no TCP plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("{listen} cannot be listened on")]
    Listen {
        /// Which one.
        listen: SocketAddr,
        /// What is wrong.
        source: std::io::Error,
    },
    /// It listens on every interface, and nobody could tell under which address to reach it.
    #[error("{listen} is every interface: others need an address to be advertised")]
    Unadvertised {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// TLS cannot be had as it is set.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
}

impl TcpPlane {
    /// Listens, with tasks of `tasks`, metrics in `registry`, and what is amiss told in `health`. The
    /// listener is closed with the last handle, and with the process.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub async fn bind(
        config: TcpConfig,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<Self, BindError> {
        if config.listen.ip().is_unspecified() && config.advertise.is_none() {
            let listen = config.listen;
            return Err(BindError::Unadvertised { listen });
        }
        let listen_error = |source| BindError::Listen {
            listen: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(listen_error)?;
        let local = listener.local_addr().map_err(listen_error)?;
        let mut own = own_process(&config, local);
        let tls = match config.tls.is_on() {
            true => Some(Arc::new(Tls::load(&config.tls, own.host(), registry)?)),
            false => None,
        };
        let renewal = tls.clone().map(|tls| {
            let degradation = health.degradation("certificates");
            let renewal = renew(tls, config.certificate_check, tasks.clone(), degradation);
            tasks.spawn(TaskKind::Background, "certificates", renewal)
        });
        own.identity = tls.as_ref().map(|tls| tls.identity.clone());
        let services = Services::default();
        let events = InProcessEvents::since_epoch();
        let internal = [
            services.serve_internal(PEER_TARGET, PeerHandler(services.clone())),
            services.serve_internal(CONFIRM_TARGET, ConfirmHandler(services.clone())),
            services.serve_internal(EVENTS_TARGET, EventsHandler(events.clone())),
        ];
        let incarnation = Incarnation(random());
        let limit_bytes = config.max_frame_bytes;
        let config = Arc::new(config);
        let server = Arc::new(Server {
            config: config.clone(),
            tls: tls.clone(),
            tasks: tasks.clone(),
            incarnation,
            metrics: Metrics::server("tcp", registry),
            services: services.clone(),
            sessions: Mutex::default(),
        });
        let client = Arc::new(Sessions {
            session: config.session(),
            incarnation,
            limits: config.limits(),
            idle: config.idle,
            dialler: TcpDialler { config, tls },
            tasks: tasks.clone(),
            metrics: Metrics::client("tcp", registry),
            by_peer: Mutex::default(),
        });
        let listener = tasks.spawn(TaskKind::Critical, "listener", server.listen(listener));
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                services,
                events,
                tasks: tasks.clone(),
                own,
                local,
                limit_bytes,
                listener,
                renewal,
                _internal: internal,
            }),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local
    }
}

impl Carrier for TcpPlane {
    type Address = Address;

    fn target(address: &Address) -> String {
        address.target.clone()
    }

    fn open_target(
        &self,
        address: Address,
        target: String,
        request: StreamRequest,
    ) -> ResponseStream {
        let client = self.inner.client.clone();
        let text = address.to_string();
        let open = Box::new(move |first: Bytes| client.open(&address, &target, first));
        Answer::stream(&text, request, self.inner.limit_bytes, open)
    }

    fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }
}

impl RequestPlane for TcpPlane {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        let target = format!("{endpoint}/{:016x}", worker.0);
        let address = Address {
            process: self.inner.own.clone(),
            target: target.clone(),
        };
        async move {
            let services = &self.inner.services;
            services.serve(target, address.to_string(), handler)
        }
        .boxed()
    }

    fn open(&self, address: &str, request: StreamRequest) -> ResponseStream {
        self.open_at(address, Self::target, request)
    }

    fn peer(&self, address: &str) -> PeerWatch {
        self.watch_at(address)
    }

    fn confirm(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, Error>> {
        self.confirm_at(instance)
    }

    fn listens_at(&self) -> Option<SocketAddr> {
        Some(self.local_addr())
    }
}

impl EventPlane for TcpPlane {
    fn publisher<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: WorkerId,
    ) -> BoxFuture<'a, Result<Box<dyn Publisher>, PlaneError>> {
        self.inner.events.publisher(topic, publisher)
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a Topic,
        publisher: &'a Instance,
    ) -> BoxFuture<'a, Result<EventStream, PlaneError>> {
        let plane = self.clone();
        let topic = Bytes::copy_from_slice(topic.as_str().as_bytes());
        let address = publisher.address.clone();
        let open = move || {
            let request = StreamRequest::of(topic.clone());
            plane.open_at(&address, |_| EVENTS_TARGET.to_owned(), request)
        };
        subscribe_over(Arc::new(open)).boxed()
    }
}

impl fmt::Debug for TcpPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpPlane")
            .field("local", &self.inner.local)
            .field("services", &self.inner.services)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.listener.cancel();
        if let Some(renewal) = &self.renewal {
            renewal.cancel();
        }
    }
}

/// This process as others know it, without TLS.
fn own_process(config: &TcpConfig, local: SocketAddr) -> Process {
    let authority = match &config.advertise {
        None => local.to_string(),
        Some(host) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
            format!("[{host}]:{}", local.port())
        }
        Some(host) => match host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => host.clone(),
            _ => format!("{host}:{}", local.port()),
        },
    };
    Process {
        authority,
        identity: None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
