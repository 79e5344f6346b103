use bytes::Bytes;

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// As many as both ends allow are open.
    #[error("{0} streams are open, as many as may be")]
    TooManyStreams(u32),
    /// Longer than [`MAX_TARGET_BYTES`](super::MAX_TARGET_BYTES).
    #[error("a target of {0} bytes is too long")]
    TargetTooLong(usize),
    /// The server takes no new streams.
    #[error("the server goes away")]
    GoingAway,
    /// As many as one session may have in its life were opened. Those that are open go on; new ones
    /// need another session.
    #[error("{0} streams were opened, as many as a session has")]
    UsedUp(u32),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// Servers open no streams.
    #[error("a server opens no streams")]
    Server,
}

/// A message that was not taken, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct SendError {
    /// The reason.
    pub kind: SendErrorKind,
    /// What was to be sent.
    pub message: Bytes,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The stream, or its sending half, has ended.
    #[error("the stream has ended")]
    Ended,
    /// Longer than [`Config::max_message_bytes`](super::Config::max_message_bytes).
    #[error("the message is longer than {0} bytes")]
    TooLong(usize),
}

/// The peer broke the protocol. The session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// No frame begins so.
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// Some of the flags must be known, and are not.
    #[error("a frame with unknown flags {0:#04x}")]
    UnknownFlags(u8),
    /// A frame's payload is not as long as its kind asks for.
    #[error("a frame's length is wrong: {0}")]
    Length(usize),
    /// A frame of the other role's.
    #[error("a frame that this role never gets")]
    Role,
    /// A stream id that is not above all before it.
    #[error("stream {0} was opened after a later one")]
    IdBackwards(u32),
    /// A frame of a stream that was never opened.
    #[error("a frame of stream {0}, which was never opened")]
    UnknownStream(u32),
    /// More streams than were allowed.
    #[error("more than {0} streams")]
    TooManyStreams(u32),
    /// More data than was allowed, on this stream.
    #[error("data beyond the credit of stream {0}")]
    OverCredit(u32),
    /// More credit than the peer's own window, on this stream.
    #[error("credit beyond the window of stream {0}")]
    OverWindow(u32),
    /// Data after the end of it, on this stream.
    #[error("data after the end of stream {0}")]
    AfterFinish(u32),
    /// Frames acknowledged, or asked for again, that there are not.
    #[error("frame {0} was never sent, or is acknowledged")]
    Sequence(u64),
    /// A packet that does not end with a frame.
    #[error("a packet that ends within a frame")]
    Truncated,
}

/// What a connection begins with is not a preface that this end understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefaceError {
    /// Something else speaks there.
    #[error("not a preface")]
    Magic,
    /// Another version of the protocol; the answer to it is
    /// [`Refusal::Version`](super::Refusal::Version).
    #[error("version {0} of the protocol is unknown")]
    Version(u8),
    /// Too short or too long for what it says to be.
    #[error("a preface of {0} bytes")]
    Length(usize),
}
