use std::collections::VecDeque;

use bytes::Bytes;

use super::CHUNK_COST;
use super::config::Config;
use super::frame::{Frame, Kind, LAST};

/// Room that an empty queue keeps, messages.
const KEPT_CAPACITY: usize = 8;

/// How this side's half of a stream ends, once what is queued has gone.
#[derive(Debug)]
pub(super) enum End {
    /// Well.
    Finish,
    /// With an error, and the other half with it.
    Fail(Bytes),
}

/// This side's half.
#[derive(Debug)]
pub(super) enum Sending {
    /// It goes on.
    Open,
    /// It ends after what is queued.
    Ending(End),
    /// Nothing more is sent, or the stream is about to be reset.
    Done,
}

/// The client's word that a stream is to end soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// To be said to the peer.
    Due,
    /// Said, or heard.
    Told,
}

/// One stream at one end.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// So much may be sent, at the cost of chunks.
    credit: u32,
    /// Messages, the first maybe begun.
    queue: VecDeque<Bytes>,
    /// What the queue will cost, but for cutting it.
    queued: usize,
    pub(super) sending: Sending,
    /// The producer waits until it is writable.
    waiting: bool,
    /// To be opened at the peer, for this target.
    pub(super) open: Option<Bytes>,
    /// To be reset at the peer, with this error.
    pub(super) reset: Option<Bytes>,
    pub(super) stop: Stop,
    /// So much may come.
    window: u32,
    /// Consumed, and not given back.
    consumed: u32,
    /// The peer's half has ended.
    pub(super) finished: bool,
    /// Nobody listens any more to what the peer sends.
    pub(super) deaf: bool,
}

impl Stream {
    /// With the peer's window to send into, and this side's to receive.
    pub(super) fn new(id: u32, credit: u32, window: u32, open: Option<Bytes>) -> Self {
        Self {
            id,
            credit,
            queue: VecDeque::new(),
            queued: 0,
            sending: Sending::Open,
            waiting: false,
            open,
            reset: None,
            stop: Stop::No,
            window,
            consumed: 0,
            finished: false,
            deaf: false,
        }
    }

    /// Takes a message to be sent.
    pub(super) fn enqueue(&mut self, message: Bytes) {
        self.queued += message.len() + CHUNK_COST;
        self.queue.push_back(message);
    }

    /// Whether credit is left beyond what is queued, and less than `limit` is queued, whatever the
    /// peer's window. If not, the producer waits for it.
    pub(super) fn poll_writable(&mut self, limit: u32) -> bool {
        self.waiting = !self.is_writable(limit);
        !self.waiting
    }

    /// Whether the producer waited for this.
    pub(super) fn wakes(&mut self, limit: u32) -> bool {
        let wakes = self.waiting && self.is_writable(limit);
        self.waiting &= !wakes;
        wakes
    }

    fn is_writable(&self, limit: u32) -> bool {
        matches!(self.sending, Sending::Open) && self.queued < self.credit.min(limit) as usize
    }

    /// The first credit, if it was unknown when the stream began.
    pub(super) fn set_credit(&mut self, credit: u32) {
        self.credit = credit;
    }

    /// The peer gives credit; `false` if that is beyond its `window`.
    pub(super) fn add_credit(&mut self, bytes: u32, window: u32) -> bool {
        let credit = self.credit.checked_add(bytes);
        let within = credit.filter(|&credit| credit <= window);
        self.credit = within.unwrap_or(self.credit);
        within.is_some()
    }

    /// Whether [`Self::next_frame`] has one, for chunks of `chunk_bytes` into a window of `window`.
    ///
    /// A chunk that lacks credit waits for half a window of it: that much always comes, and
    /// messages are not cut to crumbs.
    pub(super) fn has_frame(&self, chunk_bytes: usize, window: u32) -> bool {
        match self.queue.front() {
            Some(message) => {
                let cost = message.len().min(chunk_bytes) + CHUNK_COST;
                self.credit as usize >= cost || self.credit >= window.div_ceil(2)
            }
            None => matches!(self.sending, Sending::Ending(_)),
        }
    }

    /// How long the payload of [`Self::next_frame`] is at most.
    pub(super) fn next_bytes(&self, chunk_bytes: usize) -> usize {
        match (self.queue.front(), &self.sending) {
            (Some(message), _) => message.len().min(chunk_bytes),
            (None, Sending::Ending(End::Fail(error))) => error.len(),
            (None, _) => 0,
        }
    }

    /// The next chunk, or the end.
    pub(super) fn next_frame(&mut self, chunk_bytes: usize) -> Frame {
        let Some(message) = self.queue.front_mut() else {
            return match std::mem::replace(&mut self.sending, Sending::Done) {
                Sending::Ending(End::Fail(error)) => Frame::new(Kind::Reset, self.id, error),
                _ => Frame::new(Kind::Finish, self.id, Bytes::new()),
            };
        };
        let chunk = chunk_bytes.min(self.credit as usize - CHUNK_COST);
        let last = message.len() <= chunk;
        let payload = if last {
            let message = self.queue.pop_front().expect("it has a front");
            self.queued -= CHUNK_COST;
            if self.queue.is_empty() && self.queue.capacity() > KEPT_CAPACITY {
                self.queue.shrink_to(KEPT_CAPACITY);
            }
            message
        } else {
            message.split_to(chunk)
        };
        self.queued -= payload.len();
        self.credit -= (payload.len() + CHUNK_COST) as u32;
        let mut frame = Frame::new(Kind::Data, self.id, payload);
        frame.flags = if last { LAST } else { 0 };
        frame
    }

    /// Drops what is queued, and whatever would come after it.
    pub(super) fn stop_sending(&mut self) {
        self.queue = VecDeque::new();
        self.queued = 0;
        self.sending = Sending::Done;
    }

    /// A chunk came; `false` if there was no credit for it.
    pub(super) fn received(&mut self, bytes: usize) -> bool {
        let rest = (self.window as usize).checked_sub(bytes + CHUNK_COST);
        self.window = rest.map_or(self.window, |rest| rest as u32);
        rest.is_some()
    }

    /// A chunk of so many bytes was taken. Never more than has come.
    pub(super) fn consume(&mut self, bytes: usize, config: &Config) {
        let held = config.window_bytes - self.window - self.consumed;
        let cost = u32::try_from(bytes + CHUNK_COST).unwrap_or(u32::MAX);
        self.consumed += cost.min(held);
    }

    /// Whether enough is consumed to say so, and to anybody.
    pub(super) fn owes_credit(&self, config: &Config) -> bool {
        self.consumed >= config.window_bytes / 2 && !self.finished && !self.deaf
    }

    /// What is consumed may come again.
    pub(super) fn take_consumed(&mut self) -> u32 {
        let consumed = std::mem::take(&mut self.consumed);
        self.window += consumed;
        consumed
    }
}
