//! Workers and frontends of one cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use forebay_testkit::{Child, FaultProxy, ReservedPort, http};
use tempfile::TempDir;

use crate::wait::{PATIENCE, until};

/// What a worker of a mocker is told.
const MOCKER: [&str; 4] = ["--engine", "mocker", "--status-port", "0"];

/// How its processes find each other and talk.
pub(crate) struct Cluster {
    planes: Vec<String>,
    /// Of discovery by files, and where the processes have their temporary ones.
    directory: TempDir,
}

impl Cluster {
    /// Without any service: as it is without settings, but in a directory of its own.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// With these settings of the planes.
    pub(crate) fn with(planes: &[&str]) -> Self {
        Self {
            planes: planes.iter().map(|&flag| flag.to_owned()).collect(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// A process of this cluster.
    pub(crate) fn start(&self, component: &str, arguments: &[&str]) -> Child {
        self.start_on(&self.planes, component, arguments)
    }

    /// A process with settings of the planes of its own.
    fn start_on(&self, planes: &[String], component: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command
            .env("TMPDIR", self.directory.path())
            .arg(component)
            .args(planes)
            .args(arguments)
            .args(["--set", "telemetry.log.filter=info"]);
        Child::spawn(&command).unwrap()
    }

    /// A worker process of one mocker, which is registered when this returns.
    pub(crate) fn worker(&self, arguments: &[&str]) -> Worker {
        Worker::of(self.start("worker", &[&MOCKER, arguments].concat()))
    }

    /// The same, that finds the others and talks to them by other ways: these settings are in place
    /// of the cluster's.
    pub(crate) fn worker_on(&self, planes: &[&str]) -> Worker {
        let planes: Vec<_> = planes.iter().map(|&flag| flag.to_owned()).collect();
        Worker::of(self.start_on(&planes, "worker", &MOCKER))
    }

    /// The same, whom others reach through a proxy only.
    pub(crate) fn worker_behind(&self, proxy: &FaultProxy) -> Worker {
        self.start_behind(proxy, &MOCKER)
    }

    /// A worker process of one native engine with this model, behind a proxy as well.
    pub(crate) fn native_worker_behind(&self, proxy: &FaultProxy, model: &Path) -> Worker {
        let model = model.to_str().unwrap();
        let arguments = [model, "--threads", "1", "--status-port", "0"];
        self.start_behind(proxy, &arguments)
    }

    fn start_behind(&self, proxy: &FaultProxy, arguments: &[&str]) -> Worker {
        let port = ReservedPort::any().unwrap();
        proxy.set_target(port.address());
        let (listen, advertise) = (port.address().to_string(), proxy.address().to_string());
        let planes = ["--listen", &listen, "--advertise", &advertise];
        Worker::of(self.start("worker", &[arguments, &planes].concat()))
    }

    /// A frontend, which listens when this returns and may not have found anyone yet. Requests
    /// wait for a worker for a second.
    pub(crate) fn frontend(&self) -> Frontend {
        let wait = "frontend.worker_wait_seconds=1";
        let child = self.start("frontend", &["--port", "0", "--set", wait]);
        let address = child.wait_line(PATIENCE, |line| {
            line.strip_prefix("address")?
                .trim()
                .strip_prefix("http://")?
                .parse()
                .ok()
        });
        Frontend { child, address }
    }
}

/// A process of workers.
pub(crate) struct Worker {
    pub(crate) child: Child,
    pub(crate) status: SocketAddr,
}

/// A frontend's process.
pub(crate) struct Frontend {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Worker {
    fn of(child: Child) -> Self {
        let status = child.wait_line(PATIENCE, |line| {
            let url = line.trim().strip_prefix("http://")?;
            url.split(' ').next()?.parse().ok()
        });
        Self { child, status }
    }

    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(self.status, series)
    }

    /// Choices that its engine computes.
    pub(crate) fn running(&self) -> f64 {
        self.metric("forebay_worker_running_requests")
    }

    /// KV blocks that they hold.
    pub(crate) fn active_blocks(&self) -> f64 {
        self.metric("forebay_worker_kv_active_blocks")
    }
}

impl Frontend {
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(self.address, series)
    }

    /// How many workers take requests.
    pub(crate) fn workers(&self) -> usize {
        self.workers_of("mocker")
    }

    /// The same, of a model.
    pub(crate) fn workers_of(&self, model: &str) -> usize {
        let series = format!(r#"forebay_frontend_workers{{model="{model}",state="ready"}}"#);
        self.metric(&series) as usize
    }

    /// Waits until so many workers take requests.
    #[track_caller]
    pub(crate) fn until_workers(&self, count: usize) {
        until(&format!("there are {count} workers"), || {
            self.workers() == count
        });
    }

    /// How often a choice went on at another worker, which has to prefill it again.
    pub(crate) fn retries(&self) -> usize {
        self.metric(r#"forebay_frontend_retries_total{model="mocker"}"#) as usize
    }
}

/// A number of `/metrics`; 0, if there is no such series yet.
fn metric(address: SocketAddr, series: &str) -> f64 {
    let metrics = http::get(address, "/metrics").unwrap().body;
    let value = metrics.lines().find_map(|line| {
        let value = line.strip_prefix(series)?.strip_prefix(' ')?;
        value.parse().ok()
    });
    value.unwrap_or(0.0)
}
