use std::io;
use std::iter;
use std::net::SocketAddr;

use forebay_observability::{BuildInfo, Registry, Telemetry};
use forebay_runtime::{Health, Shutdown, ShutdownCause, Signal, TaskKind, Tasks, signals};
use forebay_tokens::WorkerId;
use futures::future::{join_all, try_join_all};
use futures::{Stream, StreamExt as _};
use tracing::info;

use super::banner::Banner;
use super::error::Error;
use super::metrics::{self, Workers};
use super::settings::WorkerSettings;
use crate::status::{StatusProcess, StatusServer};
use crate::{Worker, engines};

const BUILD: BuildInfo = BuildInfo {
    service: "forebay-worker",
    version: env!("CARGO_PKG_VERSION"),
    revision: "",
};

/// Starts the workers of a process and serves until a signal; gives the exit code. `print` shows
/// the user what is served, once the workers are there.
///
/// A SIGTERM or Ctrl-C takes the workers out of discovery first, then refuses what is new, and
/// lets the streams that run go on for the grace period; what is left then, and at once what runs
/// in a paused engine, ends with `Unavailable`, so that who asked goes on elsewhere. It is heard
/// while the process starts, too. A second one ends all at once.
///
/// # Errors
///
/// [`Error`], if the workers do not start.
pub async fn run(
    settings: WorkerSettings,
    mut print: impl FnMut(&str) -> io::Result<()>,
) -> Result<u8, Error> {
    let telemetry = Telemetry::install(&settings.telemetry, &BUILD)?;
    let mut signals = signals()?;
    let metrics = Registry::for_process(&BUILD);
    let process = Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    };
    let (shutdown, failed) = match process.start(&settings, &mut signals).await {
        Ok(started) => {
            let handles: Vec<_> = started.workers.iter().map(|w| w.handle().clone()).collect();
            let banner = Banner {
                version: BUILD.version,
                workers: &handles,
                engine: settings.workers.engine.as_str(),
                namespace: &settings.worker.namespace,
                planes: &settings.planes,
                listens: started.listens,
                status: started.status,
            };
            print(&banner.to_string())?;
            let leave = leave(started.workers, process.tasks.clone());
            let shutdown = Shutdown::new(settings.shutdown).deregister("workers", leave);
            (shutdown, None)
        }
        Err(error) => {
            let (cause, failed) = match error {
                Error::Engines(engines::Error::Interrupted(signal)) => {
                    (ShutdownCause::Signal(signal), None)
                }
                error => (ShutdownCause::Requested("it did not start"), Some(error)),
            };
            process.tasks.begin_shutdown(cause);
            (Shutdown::new(settings.shutdown), failed)
        }
    };
    let report = shutdown
        .flush("telemetry", move || telemetry.shutdown())
        .run_with(&process.tasks, &process.health, signals)
        .await;
    failed.map_or(Ok(report.exit_code()), Err)
}

/// What the process's parts share.
struct Process {
    tasks: Tasks,
    health: Health,
    metrics: Registry,
}

struct Started {
    /// At least one.
    workers: Vec<Worker>,
    /// Where the planes listen.
    listens: Option<SocketAddr>,
    /// Where the status is told.
    status: Option<SocketAddr>,
}

impl Process {
    /// The status server first, so that who looks sees a process that starts; then the planes,
    /// which are quick to fail; then the engines.
    async fn start(
        &self,
        settings: &WorkerSettings,
        signals: &mut (impl Stream<Item = Signal> + Unpin),
    ) -> Result<Started, Error> {
        let ids = iter::repeat_with(random_id).take(settings.workers.count.get());
        let ids: Vec<_> = ids.collect::<Result<_, _>>()?;
        let condition = |id: &WorkerId| {
            let name = format!("worker {:016x}", id.0);
            self.health.condition(name, "starting")
        };
        let conditions: Vec<_> = ids.iter().map(condition).collect();
        let known = Workers::default();
        metrics::register(&self.metrics, &known);
        let status = self.tell(settings, &known).await?;
        let planes = &settings.planes;
        let connecting = planes.connect(&self.tasks, &self.metrics, &self.health);
        let planes = tokio::select! {
            planes = connecting => planes?,
            Some(signal) = signals.next() => return Err(interrupted(signal)),
        };
        let spec = settings.engines();
        let mut engines = spec.start(&self.tasks, &self.metrics, signals).await?;
        engines.card.topology = settings.topology.clone();
        engines.card.weight = settings.weight();
        let specs = ids.into_iter().zip(conditions).zip(engines.specs());
        let starting = specs.map(|((id, condition), mut spec)| {
            (spec.id, spec.condition) = (id, Some(condition));
            Worker::start(&settings.worker, spec, &planes, &self.tasks)
        });
        let workers = tokio::select! {
            workers = try_join_all(starting) => workers?,
            Some(signal) = signals.next() => return Err(interrupted(signal)),
        };
        info!(count = workers.len(), "workers started");
        let handles = workers.iter().map(|worker| worker.handle().clone());
        known.get_or_init(|| handles.collect());
        Ok(Started {
            workers,
            listens: planes.requests.listens_at(),
            status,
        })
    }

    /// Tells how the process is, if that is wanted; gives where.
    async fn tell(
        &self,
        settings: &WorkerSettings,
        workers: &Workers,
    ) -> Result<Option<SocketAddr>, Error> {
        let Some(address) = settings.status.address() else {
            return Ok(None);
        };
        let process = StatusProcess {
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            workers: workers.clone(),
            host: settings.advertised_host(),
        };
        let server = StatusServer::bind(address, process);
        let server = server.map_err(|source| Error::Status { address, source })?;
        let address = server.local_addr();
        // It tells until the end, also of a process that drains.
        self.tasks.spawn(TaskKind::Critical, "status", server.run());
        Ok(Some(address))
    }
}

/// Takes the workers out of discovery, and lets their streams end: in a task that a shutdown lets go
/// on for its grace period, whether discovery is there or not. It ends those that are left.
async fn leave(workers: Vec<Worker>, tasks: Tasks) {
    let requests = tasks.requests().clone();
    let drains = workers.into_iter().map(|worker| async move {
        worker.leave().await.drain().await;
    });
    let drain = join_all(drains);
    tasks.spawn(TaskKind::Request, "drain", async move {
        // Who is killed leaves its streams to the drop of what is served.
        let _ = requests.run(drain).await;
    });
}

fn interrupted(signal: Signal) -> Error {
    engines::Error::Interrupted(signal).into()
}

/// An id that no worker has had, as good as certainly; any reader of JSON keeps all of its digits.
fn random_id() -> Result<WorkerId, Error> {
    const BITS: u32 = 53;
    let random = getrandom::u64().map_err(Error::Random)?;
    Ok(WorkerId((random >> (u64::BITS - BITS)).max(1)))
}
