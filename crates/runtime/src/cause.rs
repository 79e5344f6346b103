use std::fmt;

/// Why something was stopped or killed.
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
    /// The answer is complete before the engine says so: a stop string, or a parser that has what
    /// it needs.
    AnswerComplete,
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
            Self::AnswerComplete => "answer_complete",
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
