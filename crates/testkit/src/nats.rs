use std::fmt;
use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::child::Child;

/// How long a server may take to listen or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A real `nats-server` on a free port of 127.0.0.1, killed when this is dropped.
///
/// Methods block the thread for as long as a server takes to start, which is tens of milliseconds.
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    options: Vec<String>,
}

impl NatsServer {
    /// Starts one that lets everyone in.
    ///
    /// # Panics
    ///
    /// If there is no `nats-server` on this machine; `cargo xtask setup` installs it.
    pub fn start() -> Self {
        Self::with_options(&[])
    }

    /// Starts one with more options of its command line, such as `["--user", "a", "--pass", "b"]`.
    ///
    /// # Panics
    ///
    /// As [`NatsServer::start`], and if it does not take the options.
    pub fn with_options(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
        let child = spawn("-1", &options);
        let port = child.wait_line(PATIENCE, port);
        Self {
            child: Some(child),
            port,
            options,
        }
    }

    /// Where clients find it, as `nats://127.0.0.1:PORT`; the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill();
            child.wait_end(PATIENCE);
        }
    }

    /// Starts it again on the same port, after killing it if it runs.
    ///
    /// # Panics
    ///
    /// If the port does not become free.
    pub fn restart(&mut self) {
        self.kill();
        let until = Instant::now() + PATIENCE;
        loop {
            let mut child = spawn(&self.port.to_string(), &self.options);
            let line = child.wait_line(PATIENCE, |line| {
                (port(line).is_some() || line.contains("[FTL]")).then(|| line.to_owned())
            });
            if port(&line).is_some() {
                self.child = Some(child);
                return;
            }
            child.wait_end(PATIENCE);
            assert!(Instant::now() < until, "{child:?} cannot listen");
        }
    }

    /// Stops it without closing anything: its connections are silent until [`NatsServer::resume`].
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn pause(&self) {
        self.running().stop();
    }

    /// Lets it go on after [`NatsServer::pause`].
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn resume(&self) {
        self.running().resume();
    }

    fn running(&self) -> &Child {
        self.child.as_ref().expect("the server runs")
    }
}

impl fmt::Debug for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsServer")
            .field("port", &self.port)
            .field("child", &self.child)
            .finish_non_exhaustive()
    }
}

fn spawn(port: &str, options: &[String]) -> Child {
    let mut command = Command::new("nats-server");
    command.args(["--addr", "127.0.0.1", "--port", port]);
    command.args(options);
    match Child::spawn(&command) {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{error}: run `cargo xtask setup`")
        }
        Err(error) => panic!("nats-server does not start: {error}"),
    }
}

/// The port in the line that says it listens.
fn port(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("Listening for client connections on ")?;
    address.trim().rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn it_listens_where_it_did_before() {
        let mut server = NatsServer::start();
        let address = ("127.0.0.1", server.port());
        TcpStream::connect(address).expect("it listens");
        server.kill();
        TcpStream::connect(address).expect_err("it is gone");
        server.restart();
        TcpStream::connect(address).expect("it listens again");
    }
}
