use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use forebay_observability::Registry;
use forebay_runtime::http::{Acceptor, Connections};
use forebay_runtime::{Health, TaskKind, Tasks};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::app::{self, App};
use crate::config::FrontendConfig;
use crate::models::ModelRegistry;
use crate::pool::Readiness;

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
    connections: Arc<Connections>,
    readiness: Readiness,
    app: Arc<App>,
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
        let acceptor = Acceptor::listen(address).map_err(listen)?;
        let address = acceptor.local_addr().map_err(listen)?;
        let health = process.health.clone();
        let app = Arc::new(App::new(limits, models.clone(), process));
        let readiness = Readiness::new(models, app.metrics.clone(), &health);
        let router = app::router(app.clone());
        let connections = Connections::new(router, limits.http, "frontend", &app.registry);
        Ok(Self {
            acceptor,
            address,
            connections: Arc::new(connections),
            readiness,
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
        let _close = self.connections.closing().clone().drop_guard();
        let accept_all = async {
            loop {
                let stream = self.acceptor.accept().await;
                let place = self.connections.place().await;
                let connection = self.connections.clone().serve(stream, place);
                let tasks = &self.app.tasks;
                tasks.spawn(TaskKind::Request, "connection", connection);
            }
        };
        tokio::select! {
            () = accept_all => {}
            () = self.readiness.follow() => {}
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
