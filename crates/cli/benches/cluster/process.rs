use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Child, FaultProxy, http};

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker process or a frontend.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Its HTTP surface.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// A process of so many mockers.
    pub(crate) fn worker(directory: &Path, count: usize) -> Self {
        let count = count.to_string();
        Self::mockers(directory, &["--workers", &count])
    }

    /// A mocker behind a proxy.
    pub(crate) fn worker_behind(directory: &Path, proxy: &FaultProxy) -> Self {
        let advertise = format!("planes.advertise={}", proxy.address());
        let worker = Self::mockers(directory, &["--set", &advertise]);
        let listens = worker.child.wait_line(PATIENCE, |line| {
            let address = line.strip_prefix("requests")?.trim();
            address.strip_prefix("tcp://")?.parse().ok()
        });
        proxy.set_target(listens);
        worker
    }

    fn mockers(directory: &Path, arguments: &[&str]) -> Self {
        let arguments = [&["--engine", "mocker", "--status-port", "0"], arguments].concat();
        Self::start(directory, "worker", &arguments, "status")
    }

    pub(crate) fn frontend(directory: &Path) -> Self {
        let arguments = ["--port", "0", "--set", "frontend.worker_wait_seconds=0.1"];
        Self::start(directory, "frontend", &arguments, "address")
    }

    /// Starts a component, whose address is in a line of its banner.
    fn start(directory: &Path, component: &str, arguments: &[&str], line: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command
            .env("TMPDIR", directory)
            .arg(component)
            .args(arguments)
            .args(["--set", "telemetry.log.filter=error"]);
        let child = Child::spawn(&command).expect("forebay starts");
        let address = child.wait_line(PATIENCE, |said| {
            let url = said.strip_prefix(line)?.trim();
            url.strip_prefix("http://")?.parse().ok()
        });
        Self { child, address }
    }

    /// Waits until a frontend routes to so many workers.
    pub(crate) fn until_workers(&self, count: usize) {
        let ready = format!(r#"forebay_frontend_workers{{model="mocker",state="ready"}} {count}"#);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = http::get(self.address, "/metrics").expect("it answers");
            if metrics.body.lines().any(|line| line == ready) {
                return;
            }
            assert!(Instant::now() < deadline, "{:?} waits in vain", self.child);
            thread::sleep(Duration::from_millis(2));
        }
    }
}
