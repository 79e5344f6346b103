use std::time::Duration;

/// Which end of a session this is. Clients open streams, servers take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens streams.
    Client,
    /// Takes streams.
    Server,
}

/// What the link under a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// A stream of bytes that loses nothing while it lasts, such as TCP.
    #[default]
    Bytes,
    /// Whole packets that may be lost, repeated or out of order, such as NATS messages.
    Packets,
}

/// Limits and times of a session's end. What lies outside a field's range is taken as the nearest
/// value inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the link is; both ends must say the same.
    pub mode: Mode,
    /// How many bytes of a stream the peer may send before they are consumed here: at least 256.
    /// Each chunk counts for its bytes and [`CHUNK_COST`](super::CHUNK_COST).
    pub window_bytes: u32,
    /// The longest message that [`Session::send`](super::Session::send) takes.
    pub max_message_bytes: usize,
    /// Streams that may be open at once: at least 1.
    pub max_streams: u32,
    /// Streams that a client opens in a session's life, as no id is used twice: at least 1. Then it
    /// needs another session.
    pub max_opened: u32,
    /// A message is cut into chunks of so many bytes: 1 to 65,535.
    pub chunk_bytes: u16,
    /// Bytes sent and not yet acknowledged, at which no more data goes out: at least 128 KiB. Control
    /// frames may take as much again.
    pub max_unacknowledged_bytes: usize,
    /// A side that sent nothing for so long says that it is there.
    pub heartbeat: Duration,
    /// A peer that sent nothing for so long is lost.
    pub silence: Duration,
    /// A session without a connection for so long is lost.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Bytes,
            window_bytes: 64 << 10,
            max_message_bytes: 64 << 20,
            max_streams: 16_384,
            max_opened: 1 << 31,
            chunk_bytes: 16 << 10,
            max_unacknowledged_bytes: 4 << 20,
            heartbeat: Duration::from_millis(250),
            silence: Duration::from_millis(1200),
            grace: Duration::from_secs(1),
        }
    }
}

/// Half of it is more than an empty chunk costs, with room for data.
pub(super) const MIN_WINDOW_BYTES: u32 = 256;

impl Config {
    pub(super) fn clamped(mut self) -> Self {
        self.window_bytes = self.window_bytes.max(MIN_WINDOW_BYTES);
        self.max_streams = self.max_streams.max(1);
        self.max_opened = self.max_opened.max(1);
        self.chunk_bytes = self.chunk_bytes.max(1);
        self.max_unacknowledged_bytes = self.max_unacknowledged_bytes.max(128 << 10);
        self
    }
}
