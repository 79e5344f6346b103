use std::process::Command;

use forebay_testkit::{Child, FaultProxy, ReservedPort};
use tempfile::TempDir;

use crate::process::Process;

/// What requests and answers go by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requests {
    Tcp,
    /// The port of the servers, on 127.0.0.1.
    Nats(u16),
}

impl Requests {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Nats(_) => "NATS",
        }
    }

    fn flags(self) -> Vec<String> {
        match self {
            Self::Tcp => Vec::new(),
            Self::Nats(port) => vec!["--requests".into(), nats(port)],
        }
    }
}

/// The URL of NATS servers on 127.0.0.1.
fn nats(port: u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

/// How processes find each other and talk, and where they have their files.
pub(crate) struct Cluster {
    pub(crate) requests: Requests,
    flags: Vec<String>,
    directory: TempDir,
}

impl Cluster {
    /// Discovery by files; events go by what requests go by.
    pub(crate) fn new(requests: Requests) -> Self {
        Self {
            requests,
            flags: Vec::new(),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Discovery by an etcd at this address.
    pub(crate) fn with_etcd(mut self, address: &str) -> Self {
        let discovery = format!("etcd://{address}");
        self.flags.extend(["--discovery".into(), discovery]);
        self
    }

    /// Events by NATS servers at this URL.
    pub(crate) fn with_events(mut self, url: &str) -> Self {
        self.flags.extend(["--events".into(), url.into()]);
        self
    }

    /// A process of so many mockers.
    pub(crate) fn worker(&self, count: usize) -> Process {
        self.mockers(self.requests, &["--workers", &count.to_string()])
    }

    /// Processes of one mocker each, which start together.
    pub(crate) fn workers(&self, count: usize) -> Vec<Process> {
        let start = |_| self.command(self.requests, "worker", &MOCKER);
        let started: Vec<_> = (0..count).map(start).map(spawn).collect();
        started.into_iter().map(Process::of).collect()
    }

    /// A worker whose surface nobody waits for.
    pub(crate) fn worker_that_waits(&self) -> Child {
        spawn(self.command(self.requests, "worker", &MOCKER))
    }

    /// Processes of one mocker each, each of whom everybody reaches through a proxy of its own:
    /// with NATS it is between the worker and the server.
    pub(crate) fn workers_behind(&self, proxies: &[FaultProxy]) -> Vec<Process> {
        let start = |proxy: &FaultProxy| match self.requests {
            Requests::Tcp => {
                let port = ReservedPort::any().expect("a port");
                proxy.set_target(port.address());
                let (listen, advertise) = (port.address().to_string(), proxy.address().to_string());
                let more = ["--listen", &listen, "--advertise", &advertise];
                let command = self.command(self.requests, "worker", &[&MOCKER[..], &more].concat());
                // The port stays ours until the worker listens there.
                (spawn(command), Some(port))
            }
            Requests::Nats(port) => {
                proxy.set_target(([127, 0, 0, 1], port).into());
                let through = Requests::Nats(proxy.address().port());
                (spawn(self.command(through, "worker", &MOCKER)), None)
            }
        };
        let started: Vec<_> = proxies.iter().map(start).collect();
        let processes = started.into_iter().map(|(child, _port)| Process::of(child));
        processes.collect()
    }

    pub(crate) fn frontend(&self) -> Process {
        self.frontend_that_waits("0.1")
    }

    /// A frontend whose requests wait longer for a worker than any service is away.
    pub(crate) fn patient_frontend(&self) -> Process {
        self.frontend_that_waits("20")
    }

    fn frontend_that_waits(&self, seconds: &str) -> Process {
        let wait = format!("frontend.worker_wait_seconds={seconds}");
        let arguments = ["--port", "0", "--set", &wait];
        Process::of(spawn(self.command(self.requests, "frontend", &arguments)))
    }

    fn mockers(&self, requests: Requests, arguments: &[&str]) -> Process {
        let arguments = [&MOCKER[..], arguments].concat();
        Process::of(spawn(self.command(requests, "worker", &arguments)))
    }

    fn command(&self, requests: Requests, component: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command
            .env("TMPDIR", self.directory.path())
            .arg(component)
            .args(requests.flags())
            .args(&self.flags)
            .args(arguments)
            .args(["--set", "telemetry.log.filter=error"]);
        command
    }
}

/// What a worker of one mocker is told.
const MOCKER: [&str; 4] = ["--engine", "mocker", "--status-port", "0"];

fn spawn(command: Command) -> Child {
    Child::spawn(&command).expect("forebay starts")
}
