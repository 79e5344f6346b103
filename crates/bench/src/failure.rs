use serde::Serialize;

/// In which way a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// No connection could be made, or it broke while the request was written.
    Connect,
    /// It took longer than a request may.
    Timeout,
    /// The status was not 200.
    Http,
    /// An error came inside of a stream that had begun.
    StreamError,
    /// The answer ended before it was complete.
    Truncated,
    /// The answer was not HTTP, or not JSON, or not a stream although one was asked for.
    Malformed,
    /// The answer had another number of tokens than was asked for.
    TokenCount,
}

impl FailureClass {
    /// A stable name in snake case, as in the JSON report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Http => "http",
            Self::StreamError => "stream_error",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::TokenCount => "token_count",
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Failure {
    /// In which way.
    pub class: FailureClass,
    /// More of it in few words, the same for failures of one cause: `503 no_worker_ready`.
    pub detail: String,
}

impl Failure {
    pub(crate) fn new(class: FailureClass, detail: impl Into<String>) -> Self {
        Self {
            class,
            detail: detail.into(),
        }
    }
}
