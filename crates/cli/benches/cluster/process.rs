use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Child, FaultProxy, ReservedPort, http};

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
        let port = ReservedPort::any().expect("a port");
        proxy.set_target(port.address());
        let (listen, advertise) = (port.address().to_string(), proxy.address().to_string());
        Self::mockers(directory, &["--listen", &listen, "--advertise", &advertise])
    }

    fn mockers(directory: &Path, arguments: &[&str]) -> Self {
        let arguments = [&["--engine", "mocker", "--status-port", "0"], arguments].concat();
        Self::start(directory, "worker", &arguments)
    }

    pub(crate) fn frontend(directory: &Path) -> Self {
        let arguments = ["--port", "0", "--set", "frontend.worker_wait_seconds=0.1"];
        Self::start(directory, "frontend", &arguments)
    }

    /// Starts a component, whose surface is the first HTTP address of its banner.
    fn start(directory: &Path, component: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command
            .env("TMPDIR", directory)
            .arg(component)
            .args(arguments)
            .args(["--set", "telemetry.log.filter=error"]);
        let child = Child::spawn(&command).expect("forebay starts");
        let address = child.wait_line(PATIENCE, |line| {
            let (_, url) = line.split_once("http://")?;
            url.split(' ').next()?.parse().ok()
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
