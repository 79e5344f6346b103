use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use forebay_mux::session;

use crate::planes::PeerTlsConfig;
use crate::request_plane::session::{INTERNAL_STREAMS, MAX_PART_BYTES, SessionLimits};

/// Where a [`TcpPlane`](super::TcpPlane) listens, its bounds and its times.
///
/// [`TcpConfig::default`] is for one machine: any free port of the loopback interface, no TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpConfig {
    /// Where to listen; port 0 is any free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// `HOST` or `HOST:PORT` under which others reach the listener; without a port, the one it has.
    /// Not set, the address it listens on.
    pub advertise: Option<String>,
    /// TLS both ways: this side's certificate, which servers and clients show, and whose signature
    /// makes the other's good. With `ca` set, clients without a certificate are refused. Needs
    /// `cert` and `key`, for there is always a listener. Default off.
    pub tls: PeerTlsConfig,
    /// How often the files of `tls` are looked at. What is new in them is used for new connections
    /// after the second look. Default 5 s.
    pub certificate_check: Duration,
    /// Connections that the listener holds at most; beyond, they are closed at once. Default 4,096.
    pub max_connections: usize,
    /// Requests of one connection; beyond, one is refused with `too_many_streams`. Watches and
    /// subscriptions are not counted: there may be 16,384 of them beside. Default 16,384.
    pub max_streams: u32,
    /// The largest frame, in bytes. Default 64 MiB.
    pub max_frame_bytes: usize,
    /// Parts of frames that one connection's streams may have taken, in bytes, of all of them
    /// together; one of them may go on beyond it, up to `max_frame_bytes`. A stream beyond it waits,
    /// and its sender with it. Default 256 MiB.
    pub max_part_bytes: usize,
    /// What a stream may have on its way that nobody took, in bytes, each way. Default 64 KiB.
    pub window_bytes: u32,
    /// How long a connection may take. One that is made anew after a cut has a quarter of `grace` for
    /// this and the handshake, and twice as long each time that it fails. Default 1 s.
    pub connect_timeout: Duration,
    /// How long a peer may take from the connection to the end of the handshake, TLS included.
    /// Default 1 s.
    pub handshake_timeout: Duration,
    /// A connection that is otherwise silent says so often that it is there. Default 250 ms.
    pub heartbeat: Duration,
    /// A peer that says nothing for so long is lost. Default 1.2 s.
    pub silence: Duration,
    /// How long streams outlive a cut connection, to go on over a new one. Default 1 s.
    pub grace: Duration,
    /// A connection without streams and watches is closed after so long. Default 60 s.
    pub idle: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        let session = session::Config::default();
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: None,
            tls: PeerTlsConfig::default(),
            certificate_check: Duration::from_secs(5),
            max_connections: 4096,
            max_streams: session.max_streams,
            max_frame_bytes: session.max_message_bytes,
            max_part_bytes: MAX_PART_BYTES,
            window_bytes: session.window_bytes,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(1),
            heartbeat: session.heartbeat,
            silence: session.silence,
            grace: session.grace,
            idle: Duration::from_secs(60),
        }
    }
}

impl TcpConfig {
    pub(super) fn session(&self) -> session::Config {
        session::Config {
            mode: session::Mode::Bytes,
            window_bytes: self.window_bytes,
            max_message_bytes: self.max_frame_bytes,
            max_streams: self.max_streams.saturating_add(INTERNAL_STREAMS),
            heartbeat: self.heartbeat,
            silence: self.silence,
            grace: self.grace,
            ..session::Config::default()
        }
    }

    pub(super) fn limits(&self) -> SessionLimits {
        SessionLimits {
            requests: self.max_streams,
            assembly_bytes: self.max_part_bytes,
        }
    }
}
