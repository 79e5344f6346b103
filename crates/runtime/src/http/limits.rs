use std::time::Duration;

/// What the clients of an HTTP server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// How many connections are open at a time, at least 1. One more closes the one that is idle for
    /// longest; if none is, it waits.
    pub connections: usize,
    /// The longest request line and header fields together, in bytes; at least 1 KiB.
    pub head_bytes: usize,
    /// How long a client may take to send a request's head, from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may be idle before its first request and between two.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub write_timeout: Duration,
}
