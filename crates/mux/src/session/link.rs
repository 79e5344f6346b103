use std::time::Duration;

use super::config::{Config, MIN_WINDOW_BYTES};
use super::preface::{Hello, Incarnation};

/// What is known of the peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Credit of a stream that begins.
    pub(super) window_bytes: u32,
    /// So many streams may be open, by both ends' limits.
    pub(super) max_streams: u32,
}

/// Whether there is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet.
    Unattached,
    /// Yes.
    Attached,
    /// Not any more; lost then.
    Detached { lost_at: Duration },
    /// This side closed the session, and has still to say so.
    Closing,
    /// The session is over.
    Over,
}

/// The connection under a session, of which there is one at most.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) state: State,
    /// Whether there ever was one.
    pub(super) known: bool,
    /// Which process is at the other end, once that is known.
    pub(super) incarnation: Option<Incarnation>,
    /// Until there is a connection, it is taken for one with limits like this end's.
    peer: Peer,
    /// When something was last sent.
    pub(super) last_sent: Duration,
    /// When the peer is lost if nothing comes.
    pub(super) silent_at: Duration,
    /// A check that ran late has given more time, to this silence or this grace.
    extended: bool,
    /// A heartbeat is to be sent.
    pub(super) heartbeat_due: bool,
    /// The peer has to be asked for lost packets.
    pub(super) resume_due: bool,
    /// When it was.
    pub(super) asked_at: Option<Duration>,
}

impl Link {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            state: State::Unattached,
            known: false,
            incarnation: None,
            peer: Peer {
                window_bytes: config.window_bytes,
                max_streams: config.max_streams,
            },
            last_sent: Duration::ZERO,
            silent_at: Duration::ZERO,
            extended: false,
            heartbeat_due: false,
            resume_due: false,
            asked_at: None,
        }
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn is_attached(&self) -> bool {
        self.state == State::Attached
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Closing | State::Over)
    }

    /// A connection begins. The limits of the first one stay.
    pub(super) fn attach(&mut self, now: Duration, config: &Config, hello: &Hello) {
        if !self.known {
            self.known = true;
            self.incarnation = Some(hello.incarnation);
            self.peer = Peer {
                window_bytes: hello.window_bytes.max(MIN_WINDOW_BYTES),
                max_streams: hello.max_streams.min(config.max_streams),
            };
        }
        self.state = State::Attached;
        self.last_sent = now;
        self.heard(now + config.silence);
        self.heartbeat_due = false;
        self.resume_due = false;
        self.asked_at = None;
    }

    /// The connection is gone. Returns whether there was one.
    pub(super) fn detach(&mut self, lost_at: Duration) -> bool {
        let attached = self.is_attached();
        if attached || self.state == State::Unattached {
            self.state = State::Detached { lost_at };
            self.extended = false;
        }
        attached
    }

    /// The peer is there; it is lost then, if nothing more comes.
    pub(super) fn heard(&mut self, silent_at: Duration) {
        self.silent_at = silent_at;
        self.extended = false;
    }

    /// Whether a check that ran late may give more time: once for each silence, as a process that is
    /// always late would wait for ever.
    pub(super) fn extend(&mut self) -> bool {
        !std::mem::replace(&mut self.extended, true)
    }

    /// This side wants no more of it.
    pub(super) fn close(&mut self) {
        self.state = match self.state {
            State::Attached => State::Closing,
            State::Closing => State::Closing,
            _ => State::Over,
        };
    }

    /// It is over. Returns whether that is news.
    pub(super) fn lose(&mut self) -> bool {
        let news = !self.is_over();
        self.state = State::Over;
        news
    }
}
