//! Whether there is a connection, and whether somebody is at its other end.

use std::time::Duration;

use super::event::{DetachCause, Event, LostCause, StreamId};
use super::link::State;
use super::preface::{Hello, Incarnation, Refusal};
use super::streams::Lane;
use super::{Features, Session};

/// A check that ran so much late says more of this process than of the peer.
const LATE: Duration = Duration::from_millis(100);

impl Session {
    /// Accepts no peer but this process. Afterwards, and without this word from the first
    /// connection on, any other is refused.
    pub fn expect(&mut self, incarnation: Incarnation) {
        self.link.incarnation.get_or_insert(incarnation);
    }

    /// Which process is at the other end, once that is known.
    pub fn peer(&self) -> Option<Incarnation> {
        self.link.incarnation
    }

    /// Whether there is a connection.
    pub fn is_attached(&self) -> bool {
        self.link.is_attached()
    }

    /// Whether the session has ended, at this side's wish or any other's.
    pub fn is_over(&self) -> bool {
        self.link.is_over()
    }

    /// What this end says first on a connection that is to carry the session. A server makes it
    /// after it has attached the client's.
    pub fn hello(&self) -> Hello {
        Hello {
            role: self.role,
            mode: self.config.mode,
            features: Features::default(),
            session: self.id,
            incarnation: self.incarnation,
            expects: self.link.incarnation,
            resumes: self.link.known,
            received: self.received,
            window_bytes: self.config.window_bytes,
            max_streams: self.config.max_streams,
        }
    }

    /// The peer said hello, so there is a connection; an older one is of no use any more, and
    /// nothing of it may be received. Frames that the peer has not got go out again.
    ///
    /// # Errors
    ///
    /// The [`Refusal`], if the peer and this end do not fit together. The session is as it was: a
    /// server answers with the refusal, a client hands it to [`Self::detach`].
    pub fn attach(&mut self, now: Duration, peer: &Hello) -> Result<(), Refusal> {
        if self.is_over() || peer.session != self.id {
            return Err(Refusal::UnknownSession);
        }
        if peer.mode != self.config.mode || peer.role == self.role {
            return Err(Refusal::Version);
        }
        let known = |known: Option<Incarnation>, is| known.is_none_or(|known| known == is);
        if !known(peer.expects, self.incarnation) || !known(self.link.incarnation, peer.incarnation)
        {
            return Err(Refusal::Incarnation);
        }
        (self.log.rewind(peer.received)).map_err(|_| Refusal::Sequence)?;
        self.acknowledged = self.received;
        self.unacknowledged_bytes = 0;
        self.partial.clear();
        let resumed = self.link.known;
        self.link.attach(now, &self.config, peer);
        self.events.push_back(Event::Attached { resumed });
        if !resumed {
            self.meet_limits();
        }
        Ok(())
    }

    /// The connection has ended, or could not be had. The grace counts from the first time, until
    /// there is another.
    pub fn detach(&mut self, now: Duration, cause: DetachCause) {
        match cause {
            DetachCause::Cut => {
                self.partial.clear();
                if self.link.detach(now + self.config.grace) {
                    self.events.push_back(Event::Detached);
                }
            }
            DetachCause::Unreachable => self.lose(LostCause::Unreachable),
            DetachCause::Refused(refusal) => self.lose(LostCause::Refused(refusal)),
        }
        if self.is_over() {
            // Nobody is left to be told.
            self.link.lose();
        }
    }

    /// When [`Self::handle_timeout`] has something to do, if nothing happens before.
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.link.state {
            State::Attached if self.link.heartbeat_due => Some(self.link.silent_at),
            State::Attached => {
                let heartbeat_at = self.link.last_sent + self.config.heartbeat;
                Some(heartbeat_at.min(self.link.silent_at))
            }
            State::Detached { lost_at } => Some(lost_at),
            State::Unattached | State::Closing | State::Over => None,
        }
    }

    /// Does what time asks for: a heartbeat (call [`Self::transmit`] then), or the end of a session
    /// whose peer is silent or does not come back. A silent peer is told, in one frame that may or
    /// may not reach it: where only one direction is cut, the other end learns it so.
    ///
    /// A check that runs more than 100 ms late, of the peer's silence or of the grace, gives a
    /// heartbeat's time more: this process was held up, and what the peer sent, or the connection
    /// that it made, may be there untaken. The next one decides, late or not.
    pub fn handle_timeout(&mut self, now: Duration) {
        let state = self.link.state;
        match state {
            State::Attached => {
                if now > self.link.silent_at + LATE && self.link.extend() {
                    self.link.silent_at = now + self.config.heartbeat;
                } else if now >= self.link.silent_at {
                    self.lose(LostCause::Silent);
                    // It may hear this side though it is not heard.
                    self.link.state = State::Closing;
                    return;
                }
                self.link.heartbeat_due |= now >= self.link.last_sent + self.config.heartbeat;
            }
            State::Detached { lost_at } if now > lost_at + LATE && self.link.extend() => {
                let lost_at = now + self.config.heartbeat;
                self.link.state = State::Detached { lost_at };
            }
            State::Detached { lost_at } if now >= lost_at => self.lose(LostCause::Grace),
            _ => {}
        }
    }

    /// Streams from before the first connection meet the peer's limits.
    fn meet_limits(&mut self) {
        let peer = self.link.peer();
        let mut ids = Vec::with_capacity(self.streams.len());
        for stream in self.streams.iter_mut() {
            stream.set_credit(peer.window_bytes);
            ids.push(stream.id);
        }
        ids.sort_unstable();
        for (at, id) in ids.into_iter().enumerate() {
            let Some(slot) = self.streams.find(id) else {
                continue;
            };
            if at >= peer.max_streams as usize {
                self.streams.remove(slot);
                let id = StreamId(id);
                self.events.push_back(Event::Refused { id });
            } else {
                self.wake(slot);
                self.streams.link(Lane::Control, slot);
            }
        }
    }
}
