mod cluster;

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::Child;
use crate::reserved_port::ReservedPort;

pub use cluster::EtcdCluster;

/// How long it may take to serve or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A real etcd on 127.0.0.1, killed when this is dropped: alone, or a member of an [`EtcdCluster`].
///
/// Its elections and heartbeats are quick, so that leases of one second are to be had. Methods
/// block the thread for as long as it takes to start.
pub struct Etcd {
    child: Option<Child>,
    directory: TempDir,
    name: String,
    /// All members of its cluster, as etcd wants them named.
    cluster: String,
    client: ReservedPort,
    peer: ReservedPort,
    options: Vec<String>,
}

impl Etcd {
    /// Starts one without data that lets everyone in.
    ///
    /// # Panics
    ///
    /// If there is no `etcd` on this machine; `cargo xtask setup` installs it.
    pub fn start() -> Self {
        Self::with_options(&[])
    }

    /// Starts one with more options of its command line. With `--cert-file` it serves TLS.
    ///
    /// # Panics
    ///
    /// As [`Etcd::start`], and if it does not take the options.
    pub fn with_options(options: &[&str]) -> Self {
        let mut etcd = Self::member("test", options);
        etcd.cluster = etcd.peer_url();
        etcd.launch();
        etcd.wait_until_it_serves();
        etcd
    }

    /// One that does not run yet, and does not know its cluster.
    fn member(name: &str, options: &[&str]) -> Self {
        Self {
            child: None,
            directory: directory(),
            name: name.into(),
            cluster: String::new(),
            client: reserve(),
            peer: reserve(),
            options: options.iter().map(|&option| option.into()).collect(),
        }
    }

    /// Its address, as `127.0.0.1:PORT`; the same after a restart.
    pub fn address(&self) -> String {
        self.client.address().to_string()
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill();
            child.wait_end(PATIENCE);
        }
    }

    /// Starts it again with the data it has, after killing it if it runs.
    ///
    /// # Panics
    ///
    /// If it does not start; a member of a cluster does once there are enough of them.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        self.wait_until_it_serves();
    }

    /// A copy of its data, taken while it does not run: it is killed, and started again.
    ///
    /// # Panics
    ///
    /// If it does not start again.
    pub fn backup(&mut self) -> EtcdBackup {
        self.kill();
        let copy = directory();
        copy_tree(&self.data(), copy.path()).expect("the data can be copied");
        self.restart();
        EtcdBackup { directory: copy }
    }

    /// Starts it again with the data of a backup, after killing it if it runs: its history goes
    /// back.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restore(&mut self, backup: &EtcdBackup) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("the data is ours");
        copy_tree(backup.directory.path(), &self.data()).expect("the data can be copied");
        self.restart();
    }

    /// Stops it without closing anything: it is silent until [`Etcd::resume`].
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn pause(&self) {
        self.running().stop();
    }

    /// Lets it go on after [`Etcd::pause`].
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn resume(&self) {
        self.running().resume();
    }

    fn running(&self) -> &Child {
        self.child.as_ref().expect("etcd runs")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where other members find it, with its name.
    fn peer_url(&self) -> String {
        format!("{}=http://{}", self.name, self.peer.address())
    }

    fn launch(&mut self) {
        let is_tls = self
            .options
            .iter()
            .any(|option| option.contains("cert-file"));
        let scheme = if is_tls { "https" } else { "http" };
        let client = format!("{scheme}://{}", self.client.address());
        let peer = format!("http://{}", self.peer.address());
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.name, "--logger", "zap"])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .arg("--data-dir")
            .arg(self.data())
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.cluster])
            .args(&self.options);
        let child = match Child::spawn(&command) {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("{error}: run `cargo xtask setup`")
            }
            Err(error) => panic!("etcd does not start: {error}"),
        };
        self.child = Some(child);
    }

    fn wait_until_it_serves(&self) {
        let serves = |line: &str| line.contains("serving client").then_some(());
        self.running().wait_line(PATIENCE, serves);
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("address", &self.client.address())
            .field("child", &self.child)
            .finish_non_exhaustive()
    }
}

/// The data of an [`Etcd`] at one moment.
#[derive(Debug)]
pub struct EtcdBackup {
    directory: TempDir,
}

/// A directory in memory where there is one: etcd writes through to the disk at every change.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    directory.expect("there is room for a directory")
}

fn reserve() -> ReservedPort {
    ReservedPort::any().expect("there are free ports")
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn it_serves_where_it_did_before_also_with_older_data() {
        let mut etcd = Etcd::start();
        let address = etcd.address();
        TcpStream::connect(&address).expect("it serves");
        let backup = etcd.backup();
        etcd.kill();
        TcpStream::connect(&address).expect_err("it is gone");
        etcd.restore(&backup);
        TcpStream::connect(&address).expect("it serves again");
    }
}
