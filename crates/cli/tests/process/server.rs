//! `forebay serve` as a child, in front of a small model of random weights.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_native_engine::{ModelShape, random_gguf};
use forebay_testkit::{Child, usage};

use crate::client::get;

pub(crate) const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

/// Long enough for a start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A byte is a token. Its answers are noise, and come within a millisecond.
const SMALL: ModelShape = ModelShape {
    vocabulary: 259,
    context_length: 512,
    layers: 1,
    hidden: 32,
    feed_forward: 32,
    heads: 2,
    kv_heads: 1,
    head_dim: 16,
};

/// Writes the model's file into `directory`.
pub(crate) fn model(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("small.gguf");
    fs::write(&path, random_gguf(&SMALL, 1)).unwrap();
    path
}

/// A server that is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_by(Command::new(FOREBAY), settings)
    }

    /// `command` runs `forebay` with the arguments that it is given more.
    pub(crate) fn start_by(mut command: Command, settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        command.arg("serve").arg(model(directory.path())).args([
            "--threads",
            "1",
            "--kv-cache-bytes",
            "1000000",
        ]);
        Self::spawn(command, settings, directory)
    }

    /// Mockers under the name of the model, in its tokens.
    pub(crate) fn start_mockers(count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(FOREBAY);
        command.arg("serve").arg(model(directory.path())).args([
            "--engine",
            "mocker",
            "--workers",
            &count.to_string(),
        ]);
        Self::spawn(command, &[], directory)
    }

    fn spawn(mut command: Command, settings: &[&str], directory: tempfile::TempDir) -> Self {
        command.args(["--port", "0", "--set", "telemetry.log.filter=warn"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let child = Child::spawn(&command).unwrap();
        let address = child.wait_line(PATIENCE, |line| {
            let address = line.strip_prefix("address")?.trim();
            address.strip_prefix("http://")?.parse().ok()
        });
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that a request can hold and must give back, by name.
    pub(crate) fn held(&self) -> BTreeMap<String, i64> {
        let names = [
            "forebay_frontend_requests_in_flight",
            "forebay_frontend_body_bytes",
            "forebay_frontend_booked_",
            "forebay_frontend_waiting",
            "forebay_engine_requests_running",
            "forebay_engine_requests_waiting",
            "forebay_engine_kv_active_blocks",
            "forebay_tasks_running",
            "forebay_tasks_blocking_waiting",
        ];
        let text = get(self.address, "/metrics").body;
        let mut held: BTreeMap<_, _> = text
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse::<f64>().ok()? as i64))
            })
            .collect();
        held.insert("descriptors".into(), usage::descriptors(self.id()) as i64);
        held
    }
}

/// What a run of `forebay` that ends by itself said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

/// Runs `forebay` to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    Ended {
        code: child.wait().unwrap().code(),
        stderr,
    }
}
