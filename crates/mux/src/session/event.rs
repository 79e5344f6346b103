use bytes::Bytes;

use super::error::ProtocolError;
use super::preface::Refusal;

/// A stream within its session. Never used again there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What happened to a session or one of its streams.
///
/// Events wait in a queue, so one may still come for a stream that was reset meanwhile on this
/// side; whoever has let go of a stream passes over them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is a connection.
    Attached {
        /// Whether it goes on from an earlier one.
        resumed: bool,
    },
    /// The connection was cut; another is waited for.
    Detached,
    /// The session is over, and every stream with it.
    Lost(LostCause),
    /// The client began a stream (only at servers). Its first message follows as chunks.
    Opened {
        /// The stream.
        id: StreamId,
        /// What it is for, as given to [`Session::open`](super::Session::open).
        target: Bytes,
    },
    /// A part of a message. [`Session::consumed`](super::Session::consumed) gives its credit back.
    Chunk {
        /// The stream.
        id: StreamId,
        /// At most 65,535 bytes; may be none.
        bytes: Bytes,
        /// Whether the message ends with it.
        last: bool,
    },
    /// The peer will send nothing more on this stream. The other direction goes on.
    Finished {
        /// The stream.
        id: StreamId,
    },
    /// The peer ended the stream in both directions.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why, as given to [`Session::reset`](super::Session::reset) or
        /// [`Session::fail`](super::Session::fail).
        error: Bytes,
    },
    /// The client asks for an end of the stream soon, with what there is (only at servers). At most
    /// once for a stream, which goes on until the server ends it.
    Stopped {
        /// The stream.
        id: StreamId,
    },
    /// The stream was never opened at the server: it allows fewer streams than are open. Only
    /// for streams from before the first connection.
    Refused {
        /// The stream.
        id: StreamId,
    },
    /// [`Session::is_writable`](super::Session::is_writable) said no, and would say yes now.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// The server wants no new streams (only at clients); those that are open go on.
    GoAway {
        /// For this target, or for any.
        target: Option<Bytes>,
    },
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostCause {
    /// The peer sent nothing for [`Config::silence`](super::Config::silence).
    Silent,
    /// No connection came back within [`Config::grace`](super::Config::grace).
    Grace,
    /// A connection was refused: nobody listens there.
    Unreachable,
    /// The peer took the connection and refused the session.
    Refused(Refusal),
    /// The peer closed the session.
    Closed,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
}

/// Why a session has no connection, for [`Session::detach`](super::Session::detach).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetachCause {
    /// It was reset, or ended without a word: another is waited for within the grace.
    Cut,
    /// It could not be had, as nobody listens there: the session is lost.
    Unreachable,
    /// The peer answered with a refusal: the session is lost.
    Refused(Refusal),
}
