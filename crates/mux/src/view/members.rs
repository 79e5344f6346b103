use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use forebay_tokens::WorkerId;

/// What discovery says of one worker.
pub trait Record: Clone + PartialEq {
    /// Who it is.
    fn worker(&self) -> WorkerId;
    /// Where it is served, and by whom: another address is another process.
    fn address(&self) -> &str;
}

/// How things stand with a peer, as its connection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Its heartbeats arrive.
    Reachable,
    /// It takes nothing new until it is reachable again.
    Paused,
    /// It takes nothing new.
    Draining,
    /// Its heartbeats do not arrive, or it cannot be connected to.
    Lost,
}

/// The bounds of a [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Workers that are followed, each with a watch of its peer. Records beyond are left out until
    /// there is room. Default 16,384.
    pub max_members: usize,
    /// How long a worker that can be reached stays without a record. After that time discovery is
    /// asked once more, and only its answer ends the stay: an outage does not. Default 10 minutes,
    /// long enough for any worker that still can to register again.
    pub unlisted: Duration,
    /// The wait before discovery is asked again where it did not answer. Default 30 s.
    pub relist: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_members: 16_384,
            unlisted: Duration::from_secs(600),
            relist: Duration::from_secs(30),
        }
    }
}

/// Why a worker is not to be sent requests any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownCause {
    /// It said goodbye to discovery.
    Goodbye,
    /// It takes nothing new for a while.
    Paused,
    /// It takes nothing new.
    Draining,
    /// Its heartbeats stopped.
    Lost,
    /// Another process is the worker now.
    Moved,
    /// It has been without a record for too long.
    Unlisted,
}

impl DownCause {
    /// A stable name in snake case, for metric labels and log fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Goodbye => "goodbye",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Lost => "lost",
            Self::Moved => "moved",
            Self::Unlisted => "unlisted",
        }
    }
}

/// What a [`View`] wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<R> {
    /// Requests may be sent there from now on.
    Up(R),
    /// The record of a worker that is up is another one now, which its peer confirmed; it is served
    /// at the same address.
    Changed(R),
    /// No requests to this worker from now on; it may come up again.
    Down(WorkerId, DownCause),
    /// Look after the peer at this record's address, and tell how things stand by [`View::peer`].
    Watch(R),
    /// Ask the peer that is looked after for this worker whether the record is its own, and answer
    /// by [`View::confirmed`]. What was asked before about the same worker is of no interest any
    /// more; neither is this once its peer is not reachable, or released.
    Confirm(R),
    /// The peer of this worker needs no looking after any more.
    Release(WorkerId),
    /// Ask discovery for everyone who is there, and answer by [`View::present`] or
    /// [`View::list_failed`].
    List,
}

/// Which of the workers that discovery names may be sent requests.
///
/// A worker is up while its peer is reachable, and has confirmed that its record is its own: whoever
/// can write to discovery can claim to be anyone, and anywhere. These rules hold:
///
/// - a record at the same address that the peer has not confirmed yet, or does not confirm, changes
///   nothing: the one that it confirmed before stays;
/// - a record at another address waits for as long as the worker is up where it is: it is another
///   process that would be the worker;
/// - a peer that is lost, paused or drains is out at once, whatever its record says, and in again
///   once it is reachable;
/// - a goodbye is decisive, whatever the connection says, except that of a record which waits: that
///   one only is gone;
/// - a record that is gone without a goodbye is a hint: a worker that is up stays while it can be
///   reached, within the bound of [`Config::unlisted`]; one that is not is forgotten.
///
/// `now` is the time since some start, and does not go back. After each input, take every
/// [`View::next_output`].
#[derive(Debug)]
pub struct View<R> {
    config: Config,
    members: BTreeMap<WorkerId, Member<R>>,
    /// Those without a record, by when they lost it.
    unlisted: BTreeSet<(Duration, WorkerId)>,
    outputs: VecDeque<Output<R>>,
    up: usize,
    /// A list was asked for.
    is_listing: bool,
    /// None is asked for before.
    list_from: Duration,
    /// Records were left out.
    is_full: bool,
}

#[derive(Debug)]
struct Member<R> {
    /// The last that discovery named at the address that is looked after.
    record: R,
    /// None until its connection has told.
    peer: Option<Peer>,
    /// What its peer confirmed, while the worker is up.
    up: Option<R>,
    /// Who would be the worker in its place.
    successor: Option<R>,
    unlisted_since: Option<Duration>,
}

impl<R: Record> View<R> {
    /// Nobody is known.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            members: BTreeMap::new(),
            unlisted: BTreeSet::new(),
            outputs: VecDeque::new(),
            up: 0,
            is_listing: false,
            list_from: Duration::ZERO,
            is_full: false,
        }
    }

    /// Discovery names everyone who is there.
    pub fn present(&mut self, now: Duration, records: Vec<R>) {
        self.is_listing = false;
        self.is_full = false;
        let named: HashSet<_> = records.iter().map(Record::worker).collect();
        let missing = self.members.keys().filter(|known| !named.contains(known));
        for worker in missing.copied().collect::<Vec<_>>() {
            let since = self.members[&worker].unlisted_since;
            let bound = self.config.unlisted;
            match since.is_some_and(|since| now.saturating_sub(since) >= bound) {
                true => self.forget(worker, DownCause::Unlisted),
                false => self.expired(now, worker),
            }
        }
        for record in records {
            self.put(record);
        }
    }

    /// A record came, or replaced the one of the same worker.
    pub fn put(&mut self, record: R) {
        let worker = record.worker();
        let Some(member) = self.members.get_mut(&worker) else {
            return self.join(record);
        };
        if let Some(since) = member.unlisted_since.take() {
            self.unlisted.remove(&(since, worker));
        }
        if member.record.address() != record.address() {
            if member.up.is_some() {
                member.successor = Some(record);
                return;
            }
            self.forget(worker, DownCause::Moved);
            return self.join(record);
        }
        member.successor = None;
        if member.record != record {
            member.record = record.clone();
            if member.peer == Some(Peer::Reachable) {
                self.outputs.push_back(Output::Confirm(record));
            }
        }
    }

    /// A worker said goodbye.
    pub fn removed(&mut self, now: Duration, worker: WorkerId) {
        let member = self.members.get(&worker);
        match member.is_some_and(|member| member.successor.is_some()) {
            true => self.expired(now, worker),
            false => self.forget(worker, DownCause::Goodbye),
        }
    }

    /// A worker's record is gone without a goodbye.
    pub fn expired(&mut self, now: Duration, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.successor = None;
        if member.up.is_some() {
            let since = *member.unlisted_since.get_or_insert(now);
            self.unlisted.insert((since, worker));
        } else {
            self.forget(worker, DownCause::Unlisted);
        }
    }

    /// How things stand with the peer that was to be looked after for `worker`.
    pub fn peer(&mut self, worker: WorkerId, peer: Peer) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let before = member.peer.replace(peer);
        let cause = match peer {
            Peer::Reachable => {
                if before != Some(Peer::Reachable) {
                    let record = member.record.clone();
                    self.outputs.push_back(Output::Confirm(record));
                }
                return;
            }
            Peer::Paused => DownCause::Paused,
            Peer::Draining => DownCause::Draining,
            Peer::Lost => DownCause::Lost,
        };
        if let Some(successor) = member.successor.take() {
            self.forget(worker, DownCause::Moved);
            return self.join(successor);
        }
        if member.unlisted_since.is_some() {
            return self.forget(worker, cause);
        }
        if member.up.take().is_some() {
            self.up -= 1;
            self.outputs.push_back(Output::Down(worker, cause));
        }
    }

    /// The peer says that this record is its own, as [`Output::Confirm`] asked.
    pub fn confirmed(&mut self, record: &R) {
        let Some(member) = self.members.get_mut(&record.worker()) else {
            return;
        };
        if member.record != *record || member.peer != Some(Peer::Reachable) {
            return;
        }
        match member.up.replace(record.clone()) {
            None => {
                self.up += 1;
                self.outputs.push_back(Output::Up(record.clone()));
            }
            Some(before) if before != *record => {
                self.outputs.push_back(Output::Changed(record.clone()));
            }
            Some(_) => {}
        }
    }

    /// Discovery did not answer [`Output::List`].
    pub fn list_failed(&mut self, now: Duration) {
        self.is_listing = false;
        self.list_from = now + self.config.relist;
    }

    /// When [`View::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.is_listing {
            return None;
        }
        let overdue = self.unlisted.first();
        let overdue = overdue.map(|(since, _)| *since + self.config.unlisted);
        let room = self.has_room().then_some(Duration::ZERO);
        let due = overdue.into_iter().chain(room).min()?;
        Some(due.max(self.list_from))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.next_timeout().is_some_and(|due| due <= now) {
            self.is_listing = true;
            self.outputs.push_back(Output::List);
        }
    }

    /// What is to be done or known next, in order.
    pub fn next_output(&mut self) -> Option<Output<R>> {
        self.outputs.pop_front()
    }

    /// How many workers are followed, up or not.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// How many workers are up.
    pub fn up(&self) -> usize {
        self.up
    }

    /// Whether records were left out for want of room.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    fn has_room(&self) -> bool {
        self.is_full && self.members.len() < self.config.max_members
    }

    fn join(&mut self, record: R) {
        if self.members.len() >= self.config.max_members {
            self.is_full = true;
            return;
        }
        let worker = record.worker();
        let member = Member {
            record: record.clone(),
            peer: None,
            up: None,
            successor: None,
            unlisted_since: None,
        };
        self.members.insert(worker, member);
        self.outputs.push_back(Output::Watch(record));
    }

    fn forget(&mut self, worker: WorkerId, cause: DownCause) {
        let Some(member) = self.members.remove(&worker) else {
            return;
        };
        if let Some(since) = member.unlisted_since {
            self.unlisted.remove(&(since, worker));
        }
        if member.up.is_some() {
            self.up -= 1;
            self.outputs.push_back(Output::Down(worker, cause));
        }
        self.outputs.push_back(Output::Release(worker));
    }
}
