use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use forebay_observability::Registry;
use forebay_runtime::Health;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::routes;
use crate::WorkerHandle;

/// How many connections are open at a time; more wait to be accepted.
const MOST_CONNECTIONS: usize = 64;

/// How long a client may take for a request's head, and to send another request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when the system has no descriptor or memory for another connection.
const RECOVERY: Duration = Duration::from_millis(200);

/// What a status server tells about.
#[derive(Clone, Debug)]
pub struct StatusProcess {
    /// What `/health`, `/live` and `/ready` answer.
    pub health: Health,
    /// What `/metrics` answers.
    pub metrics: Registry,
    /// Who is in `/metadata` and takes an operator's control; not set before they have started.
    pub workers: Arc<OnceLock<Vec<WorkerHandle>>>,
    /// The machine's name, if it has one by which clients ask for control of the engines; they may
    /// as well name an address or `localhost`.
    pub host: Option<String>,
}

pub(super) type Process = Arc<StatusProcess>;

impl StatusProcess {
    pub(super) fn workers(&self) -> &[WorkerHandle] {
        self.workers.get().map_or(&[], Vec::as_slice)
    }
}

/// An HTTP server that listens, and serves once it [runs](Self::run):
///
/// | request | answer |
/// |---|---|
/// | `GET /health`, `/live`, `/ready` | the process's health, as a frontend's |
/// | `GET /metrics` | its metrics, in the OpenMetrics text format |
/// | `GET /metadata` | its workers: ids, addresses, cards |
/// | `POST /engine/pause`, `/engine/resume`, `/engine/clear-kv-cache` | changes every engine, or with `?worker=ID` one |
/// | `POST /engine/card` | changes the card of every worker, or of one, as [`WorkerHandle::update_card`] does: a JSON object of the fields of `/metadata` that are to be another one |
///
/// Nobody has to authenticate. Pages that a browser shows change nothing: a POST with an `Origin`,
/// or whose `Host` is neither an address nor a name of this machine, is refused with 403.
#[derive(Debug)]
pub struct StatusServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl StatusServer {
    /// Listens; connections wait until it runs.
    ///
    /// # Errors
    ///
    /// If the address is not to be had.
    pub async fn bind(address: SocketAddr, process: StatusProcess) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            router: routes::router(process),
        })
    }

    /// Where it listens, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped, in one task however many connections there are.
    pub async fn run(self) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < MOST_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => connections.push(serve(stream, self.router.clone())),
                        Err(error) => {
                            warn!(%error, "status connection not accepted");
                            sleep(RECOVERY).await;
                        }
                    }
                }
                Some(()) = connections.next() => {}
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "status connection lost before it was used");
        return;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        debug!(%error, "status connection ended");
    }
}
