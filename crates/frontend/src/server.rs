use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use forebay_observability::Registry;
use forebay_runtime::{Health, TaskKind, Tasks};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::acceptor::Acceptor;
use crate::app::{self, App};
use crate::config::FrontendConfig;
use crate::metrics::Metrics;
use crate::model::ModelRegistry;

/// What a frontend shares with the rest of its process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its tasks: every connection is a [`TaskKind::Request`], and every request lives in
    /// [`Tasks::requests`].
    pub tasks: Tasks,
    /// What `/health`, `/live` and `/ready` answer.
    pub health: Health,
    /// Where the frontend's metrics go, and what `/metrics` answers.
    pub metrics: Registry,
}

/// An OpenAI-compatible HTTP server that listens, and serves once it [runs](Self::run).
pub struct Frontend {
    acceptor: Acceptor,
    address: SocketAddr,
    router: Router,
    app: Arc<App>,
    connections: Arc<Semaphore>,
}

impl Frontend {
    /// Listens; connections wait until it runs.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`], or [`Error::Listen`] if the address is not to be had.
    pub async fn bind(
        config: &FrontendConfig,
        models: ModelRegistry,
        process: Process,
    ) -> Result<Self, Error> {
        let limits = config.limits()?;
        let address = config.address();
        let listen = |source| Error::Listen { address, source };
        let acceptor = Acceptor::listen(address).await.map_err(listen)?;
        let address = acceptor.local_addr().map_err(listen)?;
        let metrics = Metrics::new(&process.metrics);
        metrics
            .connections_limit
            .set(i64::try_from(limits.connections).unwrap_or(i64::MAX));
        let app = Arc::new(App {
            limits,
            models,
            tasks: process.tasks,
            health: process.health,
            registry: process.metrics,
            metrics,
        });
        Ok(Self {
            acceptor,
            address,
            router: app::router(app.clone()),
            connections: Arc::new(Semaphore::new(
                limits.connections.min(Semaphore::MAX_PERMITS),
            )),
            app,
        })
    }

    /// Where it listens, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until `cancel` or until the process's shutdown begins, then closes the
    /// socket and returns. Connections are tasks of their own and finish the requests they have; a
    /// shutdown kills those at the end of its grace period, which their clients are told.
    pub async fn run(self, cancel: CancellationToken) {
        // Tells the connections, however this ends.
        let closing = CancellationToken::new();
        let _close = closing.clone().drop_guard();
        let accept_all = async {
            loop {
                let permit = self.connections.clone().acquire_owned().await;
                let permit = permit.expect("the semaphore is never closed");
                let stream = self.acceptor.accept().await;
                let connection = Connection {
                    router: self.router.clone(),
                    header_timeout: self.app.limits.header_timeout,
                    closing: closing.clone(),
                };
                let open = Open::new(&self.app.metrics);
                let task = async move {
                    connection.serve(stream).await;
                    drop((open, permit));
                };
                self.app.tasks.spawn(TaskKind::Request, "connection", task);
            }
        };
        tokio::select! {
            () = accept_all => {}
            () = cancel.cancelled() => {}
            _ = self.app.tasks.shutdown_begun() => {}
        }
    }
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend")
            .field("address", &self.address)
            .field("models", &self.app.models)
            .finish_non_exhaustive()
    }
}

struct Connection {
    router: Router,
    header_timeout: Duration,
    closing: CancellationToken,
}

impl Connection {
    /// Serves requests until the client or the server closes.
    ///
    /// A client that leaves in the middle drops its request with the connection, and with it
    /// everything in the engine.
    async fn serve(self, stream: TcpStream) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout);
        let service = TowerToHyperService::new(self.router);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.closing.cancelled() => {
                // What it has is finished, and nothing more is taken.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

/// Counts a connection while it is open.
struct Open(forebay_observability::Gauge);

impl Open {
    fn new(metrics: &Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics.connections.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
