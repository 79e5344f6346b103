use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::Child;

/// How long it may take to serve or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Starts until there is one whose ports nobody else took meanwhile.
const ATTEMPTS: usize = 5;

/// A real etcd of one member on 127.0.0.1, killed when this is dropped.
///
/// Its elections and heartbeats are quick, so that leases of one second are to be had. Methods
/// block the thread for as long as it takes to start.
pub struct Etcd {
    child: Option<Child>,
    directory: TempDir,
    client: u16,
    peer: u16,
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
        let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
        for _ in 0..ATTEMPTS {
            let (client, peer) = free_ports();
            let mut etcd = Self {
                child: None,
                directory: tempfile::tempdir().expect("there is room for a directory"),
                client,
                peer,
                options: options.clone(),
            };
            if etcd.serve() {
                return etcd;
            }
        }
        panic!("etcd found no free port in {ATTEMPTS} attempts");
    }

    /// Its address, as `127.0.0.1:PORT`; the same after a restart.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client)
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
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.serve(), "somebody took the port of etcd");
    }

    /// A copy of its data, taken while it does not run: it is killed, and started again.
    ///
    /// # Panics
    ///
    /// If it does not start again.
    pub fn backup(&mut self) -> EtcdBackup {
        self.kill();
        let copy = tempfile::tempdir().expect("there is room for a directory");
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

    /// Whether it serves; false if somebody else has one of its ports.
    fn serve(&mut self) -> bool {
        let is_tls = self
            .options
            .iter()
            .any(|option| option.contains("cert-file"));
        let scheme = if is_tls { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", self.client);
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let mut command = Command::new("etcd");
        command
            .args(["--name", "test", "--logger", "zap"])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .arg("--data-dir")
            .arg(self.data())
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .args(&self.options);
        let mut child = match Child::spawn(&command) {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("{error}: run `cargo xtask setup`")
            }
            Err(error) => panic!("etcd does not start: {error}"),
        };
        let serves = child.wait_line(PATIENCE, |line| {
            if line.contains("address already in use") {
                return Some(false);
            }
            let is_up = line.contains("serving client") || line.contains("serving insecure client");
            is_up.then_some(true)
        });
        match serves {
            true => self.child = Some(child),
            false => drop(child.wait_end(PATIENCE)),
        }
        serves
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("port", &self.client)
            .field("child", &self.child)
            .finish_non_exhaustive()
    }
}

/// The data of an [`Etcd`] at one moment.
#[derive(Debug)]
pub struct EtcdBackup {
    directory: TempDir,
}

/// Two ports that are free now; etcd cannot choose one by itself and say which.
fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
    let (one, other) = (bind(), bind());
    (port(&one), port(&other))
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
