//! A program at one end of a session: it sends what is planned, and checks what it gets.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use forebay_mux::session::{Assembler, CHUNK_COST, Event, Session, StreamId};

use crate::plan::{Ending, Plan, StreamPlan, message};

/// What is wrong.
pub(crate) type Failure = String;

/// How the peer ended a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Reset(Bytes),
}

/// One stream, as the program sees it.
struct Stream {
    number: usize,
    /// Messages handed over.
    sent: usize,
    sent_bytes: usize,
    /// This side has ended its half.
    ended: bool,
    /// It has reset the stream.
    left: bool,
    /// For [`Event::Writable`].
    waiting: bool,
    /// Chunks that came and are not taken, with whether they are the last of a message.
    inbox: VecDeque<(Bytes, bool)>,
    assembler: Assembler,
    /// Messages that came, whole.
    received: usize,
    /// The client has stopped it.
    stopped: bool,
    peer: Option<End>,
}

/// One end and its program.
pub(crate) struct Side {
    pub(crate) session: Session,
    up: bool,
    window_bytes: usize,
    streams: HashMap<StreamId, Stream>,
    ids: Vec<StreamId>,
    /// Counts what happens to the program.
    pub(crate) happened: u64,
    /// Never says that it has taken something (a planted bug).
    pub(crate) forgets_credit: bool,
}

/// The error that a stream ends with.
fn error(number: usize) -> Bytes {
    Bytes::from(format!("stream {number} has had enough"))
}

impl Side {
    pub(crate) fn new(session: Session, up: bool, window_bytes: u32) -> Self {
        Self {
            session,
            up,
            window_bytes: window_bytes as usize,
            streams: HashMap::new(),
            ids: Vec::new(),
            happened: 0,
            forgets_credit: false,
        }
    }

    /// Opens the next stream, if there are more.
    pub(crate) fn open(&mut self, plan: &Plan) {
        let number = self.ids.len();
        if self.up && number < plan.streams.len() {
            let target = Bytes::copy_from_slice(&number.to_be_bytes());
            let id = self.session.open(target).unwrap();
            self.add(id, number);
        }
    }

    fn add(&mut self, id: StreamId, number: usize) {
        let stream = Stream {
            number,
            sent: 0,
            sent_bytes: 0,
            ended: false,
            left: false,
            waiting: false,
            inbox: VecDeque::new(),
            assembler: Assembler::default(),
            received: 0,
            stopped: false,
            peer: None,
        };
        self.ids.push(id);
        self.streams.insert(id, stream);
    }

    /// One of the streams there are, by a random number.
    pub(crate) fn pick(&self, random: u64) -> Option<StreamId> {
        let count = self.ids.len() as u64;
        (count > 0).then(|| self.ids[(random % count) as usize])
    }

    pub(crate) fn ids(&self) -> Vec<StreamId> {
        self.ids.clone()
    }

    /// The program sends the next message of a stream if it may, or ends it.
    pub(crate) fn produce(&mut self, id: StreamId, plan: &Plan) {
        let stream = self.streams.get_mut(&id).unwrap();
        if stream.ended || stream.waiting {
            return;
        }
        let of = &plan.streams[stream.number];
        let resets = match of.ending {
            Ending::ClientResets(after) if self.up => Some(after),
            Ending::ServerResets(after) if !self.up => Some(after),
            _ => None,
        };
        if resets.is_some_and(|after| stream.sent >= after) {
            (stream.ended, stream.left) = (true, true);
            stream.inbox.clear();
            self.session.reset(id, error(stream.number));
            return;
        }
        let lengths = if self.up { &of.up } else { &of.down };
        if let Ending::ClientStops(after) = of.ending {
            let is_due = stream.sent >= after.min(lengths.len());
            match (self.up, stream.stopped) {
                (true, false) if is_due => {
                    stream.stopped = true;
                    self.session.stop(id);
                    self.session.stop(id);
                }
                (false, true) => {
                    stream.ended = true;
                    self.session.finish(id);
                    return;
                }
                (false, false) if stream.sent == lengths.len() => return,
                _ => {}
            }
        }
        let Some(&length) = lengths.get(stream.sent) else {
            stream.ended = true;
            match of.ending {
                Ending::ServerFails if !self.up => self.session.fail(id, error(stream.number)),
                _ if resets.is_some() => {
                    stream.left = true;
                    stream.inbox.clear();
                    self.session.reset(id, error(stream.number));
                }
                _ => self.session.finish(id),
            }
            return;
        };
        if !self.session.is_writable(id) {
            stream.waiting = true;
            return;
        }
        let message = message(stream.number, self.up, stream.sent, length);
        self.session.send(id, message).unwrap();
        stream.sent += 1;
        stream.sent_bytes += length;
    }

    /// The program takes a chunk of a stream.
    pub(crate) fn consume(&mut self, id: StreamId, plan: &Plan) -> Result<(), Failure> {
        let stream = self.streams.get_mut(&id).unwrap();
        let Some((bytes, last)) = stream.inbox.pop_front() else {
            return Ok(());
        };
        if !self.forgets_credit {
            self.session.consumed(id, bytes.len());
        }
        let whole = stream.assembler.push(bytes, last, usize::MAX).unwrap();
        let Some(whole) = whole else {
            return Ok(());
        };
        let of = &plan.streams[stream.number];
        let lengths = if self.up { &of.down } else { &of.up };
        let expected = lengths.get(stream.received);
        let expected = expected.map(|&n| message(stream.number, !self.up, stream.received, n));
        if expected != Some(whole) {
            let (number, n) = (stream.number, stream.received);
            return Err(format!("stream {number}: message {n} is another"));
        }
        stream.received += 1;
        Ok(())
    }

    /// The program takes all that has come on a stream.
    pub(crate) fn consume_all(&mut self, id: StreamId, plan: &Plan) -> Result<(), Failure> {
        while self
            .streams
            .get(&id)
            .is_some_and(|stream| !stream.inbox.is_empty())
        {
            self.consume(id, plan)?;
        }
        Ok(())
    }

    /// Takes what the session says happened.
    pub(crate) fn listen(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.session.next_event() {
            self.happened += 1;
            match event {
                Event::Attached { .. } | Event::Detached => {}
                Event::Opened { id, target } => {
                    let number = target.as_ref().try_into().map(usize::from_be_bytes);
                    self.add(id, number.map_err(|_| "another target")?);
                }
                Event::Chunk { id, bytes, last } => {
                    let stream = self.live(id)?;
                    // What it said before it heard of the reset may still be told of.
                    if !stream.left {
                        stream.inbox.push_back((bytes, last));
                    }
                }
                Event::Stopped { id } => {
                    let stream = self.streams.get_mut(&id).ok_or("a stream nobody knows")?;
                    if self.up || std::mem::replace(&mut stream.stopped, true) {
                        return Err(format!("stream {}: stopped again", stream.number));
                    }
                }
                Event::Finished { id } => self.live(id)?.peer = Some(End::Finished),
                Event::Reset { id, error } => {
                    let stream = self.live(id)?;
                    stream.ended = true;
                    stream.peer = Some(End::Reset(error));
                }
                Event::Writable { id } => {
                    let stream = self.streams.get_mut(&id).unwrap();
                    if !std::mem::take(&mut stream.waiting) {
                        return Err(format!("stream {}: woken from no sleep", stream.number));
                    }
                }
                event => return Err(format!("unexpected: {event:?}")),
            }
        }
        self.check_bounds()
    }

    /// A stream of which something may come.
    fn live(&mut self, id: StreamId) -> Result<&mut Stream, Failure> {
        let stream = self.streams.get_mut(&id).ok_or("a stream nobody knows")?;
        match stream.peer {
            None => Ok(stream),
            Some(_) => Err(format!("stream {}: more after its end", stream.number)),
        }
    }

    fn check_bounds(&self) -> Result<(), Failure> {
        for stream in self.streams.values() {
            let held = stream
                .inbox
                .iter()
                .map(|(bytes, _)| bytes.len() + CHUNK_COST);
            let held: usize = held.sum();
            if held > self.window_bytes {
                return Err(format!("stream {}: {held} bytes wait", stream.number));
            }
        }
        Ok(())
    }

    /// Bytes of a stream's own messages, handed over and not taken by `peer`, stay within its window
    /// (for which this side's is taken before there is a connection) and a message at each end.
    pub(crate) fn check_backlog(&self, peer: &Self, plan: &Plan) -> Result<(), Failure> {
        for (id, stream) in &self.streams {
            let of = &plan.streams[stream.number];
            let lengths = if self.up { &of.up } else { &of.down };
            let taken = peer.streams.get(id).map_or(0, |peer| peer.received);
            let taken: usize = lengths[..taken].iter().sum();
            let part = lengths.iter().max().copied().unwrap_or(0);
            let window = peer.window_bytes.max(self.window_bytes);
            if stream.sent_bytes - taken > window + 2 * part {
                return Err(format!("stream {}: too much under way", stream.number));
            }
        }
        Ok(())
    }

    /// Whether all streams have come to their ends here.
    pub(crate) fn is_done(&self) -> bool {
        let over = |stream: &Stream| stream.ended && stream.inbox.is_empty();
        self.session.streams() == 0 && self.streams.values().all(over)
    }

    /// What has come is what was planned.
    pub(crate) fn check_end(&self, plan: &Plan) -> Result<(), Failure> {
        for stream in self.streams.values() {
            let of = &plan.streams[stream.number];
            if let Some(wrong) = self.wrong_end(stream, of) {
                return Err(format!("stream {}: {wrong}", stream.number));
            }
        }
        if self.up && self.ids.len() < plan.streams.len() {
            return Err("not all streams were opened".to_owned());
        }
        Ok(())
    }

    fn wrong_end(&self, stream: &Stream, of: &StreamPlan) -> Option<String> {
        let expected = if self.up { of.down.len() } else { of.up.len() };
        let whole = match of.ending {
            Ending::Finish => true,
            Ending::ClientStops(_) => !self.up,
            Ending::ServerFails => self.up,
            Ending::ClientResets(_) | Ending::ServerResets(_) => false,
        };
        if whole && stream.received != expected {
            return Some(format!("{} of {expected} messages", stream.received));
        }
        let told = match of.ending {
            Ending::Finish | Ending::ClientStops(_) => Some(End::Finished),
            Ending::ServerFails | Ending::ServerResets(_) if self.up => {
                Some(End::Reset(error(stream.number)))
            }
            Ending::ClientResets(_) if !self.up => Some(End::Reset(error(stream.number))),
            _ => return None,
        };
        (stream.peer != told).then(|| format!("it was told {:?}", stream.peer))
    }
}
