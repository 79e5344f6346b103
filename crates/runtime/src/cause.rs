use std::fmt;

/// Why something was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelCause {
    /// The client went away, so nobody reads the answer.
    ClientDisconnected,
    /// The client asked for it.
    ClientRequest,
    /// The time set for it is over.
    Deadline,
    /// The process shuts down.
    Shutdown,
    /// Another part of the same request failed, so the rest is of no use.
    SiblingFailed,
    /// Something of the caller's own.
    Other(&'static str),
}

impl CancelCause {
    /// A stable name in snake case, for metric labels and log fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientDisconnected => "client_disconnected",
            Self::ClientRequest => "client_request",
            Self::Deadline => "deadline",
            Self::Shutdown => "shutdown",
            Self::SiblingFailed => "sibling_failed",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for CancelCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
