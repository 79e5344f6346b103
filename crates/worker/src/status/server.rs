use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay_observability::Registry;
use forebay_runtime::Health;
use forebay_runtime::http::{Acceptor, Connections, HttpLimits};
use futures::StreamExt as _;
use futures::stream;

use super::routes;
use crate::WorkerHandle;

/// A probe must come through whatever other clients do: one that does not read is not waited for as
/// long as it takes an orchestrator to give the process up.
const LIMITS: HttpLimits = HttpLimits {
    connections: 64,
    head_bytes: 32 << 10,
    header_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(30),
    write_timeout: Duration::from_secs(2),
};

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
///
/// At most 64 connections are open at a time; one more closes the one that is idle for longest. One
/// whose client takes nothing of an answer for 2 s is closed.
#[derive(Debug)]
pub struct StatusServer {
    acceptor: Acceptor,
    address: SocketAddr,
    connections: Arc<Connections>,
}

impl StatusServer {
    /// What it serves, as a user is shown it: a line for each method, with its paths.
    pub const OFFERS: [&str; 2] = routes::OFFERS;

    /// Listens; connections wait until it runs.
    ///
    /// # Errors
    ///
    /// If the address is not to be had.
    pub fn bind(address: SocketAddr, process: StatusProcess) -> io::Result<Self> {
        let acceptor = Acceptor::listen(address)?;
        let registry = process.metrics.clone();
        let connections = Connections::new(routes::router(process), LIMITS, "status", &registry);
        Ok(Self {
            address: acceptor.local_addr()?,
            acceptor,
            connections: Arc::new(connections),
        })
    }

    /// Where it listens, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped, in one task however many connections there are.
    pub async fn run(self) {
        let Self {
            acceptor,
            connections,
            ..
        } = self;
        let accepted = stream::unfold((), |()| async {
            let stream = acceptor.accept().await;
            Some(((stream, connections.place().await), ()))
        });
        accepted
            .for_each_concurrent(None, |(stream, place)| {
                connections.clone().serve(stream, place)
            })
            .await;
    }
}
