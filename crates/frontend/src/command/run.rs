use std::io;

use forebay_observability::{BuildInfo, Registry, Telemetry};
use forebay_runtime::{Health, Shutdown, ShutdownCause, ShutdownConfig, TaskKind, Tasks, signals};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::banner::Banner;
use super::error::Error;
use super::make_room;
use super::settings::FrontendSettings;
use crate::{Frontend, ModelRegistry, Process};

const BUILD: BuildInfo = BuildInfo {
    service: "forebay-frontend",
    version: env!("CARGO_PKG_VERSION"),
    revision: "",
};

/// Serves what the workers of a deployment serve, until a signal; gives the exit code. `print` shows
/// the user where, once it listens, whether there are workers by then or not.
///
/// A SIGTERM or Ctrl-C makes it refuse what is new, and lets what runs end within the grace period.
/// While the process starts, and where that fails, clients that wait are told at once. A second one
/// ends all at once.
///
/// # Errors
///
/// [`Error`], if the frontend does not start.
pub async fn run(
    mut settings: FrontendSettings,
    mut print: impl FnMut(&str) -> io::Result<()>,
) -> Result<u8, Error> {
    let telemetry = Telemetry::install(&settings.telemetry, &BUILD)?;
    let most_connections = &mut settings.frontend.max_connections;
    *most_connections = make_room(*most_connections);
    let mut signals = signals()?;
    let metrics = Registry::for_process(&BUILD);
    let process = Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    };
    let (tasks, health) = (process.tasks.clone(), process.health.clone());

    // The address first: it is quick to fail, and who looks sees a process that starts.
    let models = ModelRegistry::pending();
    let frontend = Frontend::bind(&settings.frontend, models.clone(), process.clone()).await?;
    let address = frontend.local_addr();
    tasks.spawn(
        TaskKind::Critical,
        "accept connections",
        frontend.run(CancellationToken::new()),
    );
    let connecting = (settings.planes).connect(&tasks, &process.metrics, &health);
    let connected = tokio::select! {
        connected = connecting => connected.map_err(|error| {
            (ShutdownCause::Requested("it did not start"), Some(Error::from(error)))
        }),
        Some(signal) = signals.next() => Err((ShutdownCause::Signal(signal), None)),
    };
    // Borrowed: the planes are there until everything has ended.
    let shutdown = match &connected {
        Ok(planes) => {
            models.follow(planes, &settings.namespace, &settings.frontend, &process)?;
            let banner = Banner {
                version: BUILD.version,
                namespace: &settings.namespace,
                router_mode: settings.frontend.router.mode.to_string(),
                shares_bookings: settings.frontend.share_bookings,
                planes: &settings.planes,
                listens: planes.requests.listens_at(),
                address,
            };
            print(&banner.to_string())?;
            settings.shutdown
        }
        Err((cause, _)) => {
            tasks.begin_shutdown(*cause);
            // Nobody will answer those who wait.
            ShutdownConfig {
                grace_seconds: 0.0,
                ..settings.shutdown
            }
        }
    };
    let report = Shutdown::new(shutdown)
        .flush("telemetry", move || telemetry.shutdown())
        .run_with(&tasks, &health, signals)
        .await;
    match connected {
        Err((_, Some(failed))) => Err(failed),
        _ => Ok(report.exit_code()),
    }
}
