//! The request plane over NATS.

mod address;
mod config;
mod dial;
mod hub;
mod link;
mod message;
mod server;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use forebay_mux::session::Incarnation;
use forebay_observability::Registry;
use forebay_protocols::Error;
use forebay_tokens::WorkerId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::AbortHandle;
use parking_lot::Mutex;

pub use config::NatsPlaneConfig;

use self::address::{Address, Target};
use self::dial::NatsDialler;
use self::hub::Hub;
use self::server::Server;
use super::connection::NatsConnection;
use crate::discovery::Instance;
use crate::names::EndpointId;
use crate::planes::PlaneError;
use crate::random::random;
use crate::request_plane::services::Services;
use crate::request_plane::session::{
    Answer, CONFIRM_TARGET, Carrier, ConfirmHandler, Metrics, PEER_TARGET, PeerHandler, Sessions,
};
use crate::request_plane::{
    PeerWatch, RequestPlane, ResponseStream, Served, StreamHandler, StreamRequest,
};
use crate::tasks::{TaskHandle, TaskKind, Tasks};

/// What the subjects of instances begin with.
const INSTANCE_SUBJECT: &str = "forebay.rq";
/// The queue group of an instance: of several that say they are it, one answers.
const QUEUE: &str = "forebay";

/// A request plane over NATS. Clones are handles on the same one.
///
/// Between two processes there is one *session*, as over TCP: all streams share it, frames are
/// sent again until the peer has them, and a message that NATS lost is asked for. A client finds a
/// process by the subject of the instance (`forebay.rq.<namespace>.<component>.<endpoint>.<worker>`,
/// with a queue group); then each end reads a subject of its own
/// (`forebay.rp.<process>.<c or s>.<session>`). A message carries many frames, up to 128 KiB or what
/// the server takes; a large frame is cut into several.
///
/// While the server is away, streams wait for [`NatsPlaneConfig::grace`], and go on when it is back
/// with nothing lost and nothing twice; new ones wait as long. A peer that is silent while the
/// server is there is lost after [`NatsPlaneConfig::silence`].
///
/// Addresses are `nats:NAMESPACE/COMPONENT/ENDPOINT/WORKER@PROCESS`. The process is a random number
/// of each start, so a process that took the place of another is never mistaken for it.
///
/// Metrics: `forebay_nats_client_*` for what this process opens, `forebay_nats_server_*` for what it
/// serves, beside `forebay_nats_*` of the connection.
#[derive(Clone)]
pub struct NatsPlane {
    inner: Arc<Inner>,
}

struct Inner {
    client: Arc<Sessions<NatsDialler>>,
    hub: Arc<Hub>,
    services: Services,
    tasks: Tasks,
    limit_bytes: usize,
    run: TaskHandle,
    _internal: [Box<dyn Served>; 2],
}

impl NatsPlane {
    /// A plane over a connection, with tasks of `tasks` and metrics in `registry`.
    ///
    /// # Errors
    ///
    /// [`PlaneError::Unreachable`], if the connection is closed, or the server takes only messages
    /// of less than 32 KiB.
    pub async fn start(
        connection: &NatsConnection,
        config: NatsPlaneConfig,
        tasks: &Tasks,
        registry: &Registry,
    ) -> Result<Self, PlaneError> {
        let client = connection.client();
        if client.max_payload() < link::MIN_MESSAGE_BYTES {
            let error = "the nats server's max_payload is below 32 KiB";
            return Err(PlaneError::Unreachable(error.into()));
        }
        let incarnation = Incarnation(random());
        let inbox = client.subscribe(Hub::inbox(incarnation)).await;
        let inbox = inbox.map_err(|error| PlaneError::Unreachable(error.into()))?;
        let (hub, sources) = Hub::new(connection.clone(), incarnation, config.max_sessions, inbox);
        let services = Services::default();
        let internal = [
            services.serve_internal(PEER_TARGET, PeerHandler(services.clone())),
            services.serve_internal(CONFIRM_TARGET, ConfirmHandler(services.clone())),
        ];
        let limit_bytes = config.max_frame_bytes;
        let server = Arc::new(Server {
            config: config.clone(),
            hub: hub.clone(),
            tasks: tasks.clone(),
            metrics: Metrics::server("nats", registry),
            services: services.clone(),
        });
        let client = Arc::new(Sessions {
            session: config.session(),
            incarnation,
            limits: config.limits(),
            idle: config.idle,
            dialler: NatsDialler {
                config: Arc::new(config),
                hub: hub.clone(),
            },
            tasks: tasks.clone(),
            metrics: Metrics::client("nats", registry),
            by_peer: Mutex::default(),
        });
        let run = hub.clone().run(sources, move |begun| server.begin(begun));
        let run = tasks.spawn(TaskKind::Critical, "nats_hub", run);
        connection.settle().await;
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                hub,
                services,
                tasks: tasks.clone(),
                limit_bytes,
                run,
                _internal: internal,
            }),
        })
    }
}

impl Carrier for NatsPlane {
    type Address = Address;

    fn target(address: &Address) -> String {
        address.target.to_string()
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

impl RequestPlane for NatsPlane {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        let target = Target::new(endpoint, worker);
        async move {
            let hub = &self.inner.hub;
            let address = Address {
                target: target.clone(),
                process: hub.incarnation,
            };
            let services = &self.inner.services;
            let served = services.serve(target.to_string(), address.to_string(), handler)?;
            let subject = instance_subject(&target);
            let client = hub.connection.client();
            let messages = client.queue_subscribe(subject, QUEUE.to_owned()).await;
            let messages = messages.map_err(|error| PlaneError::Unreachable(error.into()))?;
            let subscription = hub.add_instance(messages).await;
            hub.connection.settle().await;
            Ok(Box::new(ServedOverNats {
                served,
                subscription,
            }) as Box<dyn Served>)
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
}

impl fmt::Debug for NatsPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsPlane")
            .field("connection", &self.inner.hub.connection)
            .field("services", &self.inner.services)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.run.cancel();
    }
}

fn instance_subject(target: &Target) -> String {
    format!("{INSTANCE_SUBJECT}.{}", target.tokens())
}

/// What is served, until this is dropped.
struct ServedOverNats {
    served: Box<dyn Served>,
    /// Of clients' hellos.
    subscription: AbortHandle,
}

impl Served for ServedOverNats {
    fn address(&self) -> &str {
        self.served.address()
    }

    fn announce(&self, card: Bytes) {
        self.served.announce(card);
    }

    fn set_paused(&self, is_paused: bool) {
        self.served.set_paused(is_paused);
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.served.drain()
    }

    fn fail(&self, error: Error) {
        self.served.fail(error);
    }
}

impl Drop for ServedOverNats {
    fn drop(&mut self) {
        self.subscription.abort();
    }
}
