use std::time::Duration;

use forebay_mux::session;

use crate::request_plane::session::{INTERNAL_STREAMS, MAX_PART_BYTES, SessionLimits};

/// Bounds and times of a [`NatsPlane`](super::NatsPlane).
#[derive(Clone, Debug, PartialEq)]
pub struct NatsPlaneConfig {
    /// Client processes that may have a session here; others are refused with
    /// `too_many_connections`. Default 4,096.
    pub max_sessions: usize,
    /// Requests of one session; beyond, one is refused with `too_many_streams`. Watches are not
    /// counted: there may be 16,384 of them beside. Default 16,384.
    pub max_streams: u32,
    /// The largest frame, in bytes. Default 64 MiB.
    pub max_frame_bytes: usize,
    /// Parts of frames that one session's streams may have taken, in bytes, of all of them
    /// together; one of them may go on beyond it, up to `max_frame_bytes`. A stream beyond it waits,
    /// and its sender with it. Default 256 MiB.
    pub max_part_bytes: usize,
    /// What a stream may have on its way that nobody took, in bytes, each way. Default 64 KiB.
    pub window_bytes: u32,
    /// What a session may have on its way that the peer has not acknowledged, in bytes. All
    /// sessions of a process together should stay below what the server keeps for a connection
    /// (`max_pending`, 64 MiB unless set), or it may cut that. Default 1 MiB.
    pub max_unacknowledged_bytes: usize,
    /// How long a first answer of a process may take while the server is there. Default 1 s.
    pub connect_timeout: Duration,
    /// A session that is otherwise silent says so often that it is there. Default 250 ms.
    pub heartbeat: Duration,
    /// A peer that says nothing for so long is lost, unless the server is away. Shorter than
    /// over TCP, for it begins only once a peer that no longer hears the server has found that out.
    /// Default 1 s.
    pub silence: Duration,
    /// How long streams outlive an absence of the server, and requests wait for its end: longer
    /// than over TCP, for a server takes its time to start anew. Default 10 s.
    pub grace: Duration,
    /// A session without streams and watches ends after so long. Default 60 s.
    pub idle: Duration,
}

impl Default for NatsPlaneConfig {
    fn default() -> Self {
        let session = session::Config::default();
        Self {
            max_sessions: 4096,
            max_streams: session.max_streams,
            max_frame_bytes: session.max_message_bytes,
            max_part_bytes: MAX_PART_BYTES,
            window_bytes: session.window_bytes,
            max_unacknowledged_bytes: 1 << 20,
            connect_timeout: Duration::from_secs(1),
            heartbeat: session.heartbeat,
            silence: Duration::from_secs(1),
            grace: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

impl NatsPlaneConfig {
    pub(super) fn session(&self) -> session::Config {
        session::Config {
            mode: session::Mode::Packets,
            window_bytes: self.window_bytes,
            max_message_bytes: self.max_frame_bytes,
            max_streams: self.max_streams.saturating_add(INTERNAL_STREAMS),
            max_unacknowledged_bytes: self.max_unacknowledged_bytes,
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
