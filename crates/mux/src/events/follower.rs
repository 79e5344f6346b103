use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::iter;
use std::time::Duration;

use forebay_tokens::{DpRank, KvEvent};

use super::batch::{KvBatch, KvMark, KvPosition};
use super::cut::pack;
use super::digest::KvDigest;
use super::pacing::Pacing;

/// The bounds of a [`KvFollower`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerConfig {
    /// How many bytes of batches are kept while a repair is under way; beyond it the oldest are
    /// dropped, and repaired later. Default 1 MiB.
    pub buffer_bytes: usize,
}

impl Default for FollowerConfig {
    fn default() -> Self {
        Self {
            buffer_bytes: 1 << 20,
        }
    }
}

/// What whoever drives a follower is to do for what it knows of the worker, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvUpdate {
    /// Forget what is known of the rank: it holds what these events say.
    Reset {
        /// Whose cache.
        rank: DpRank,
        /// Everything it holds.
        events: Vec<KvEvent>,
    },
    /// The rank's cache has changed.
    Changes {
        /// Whose cache.
        rank: DpRank,
        /// What changed, in order.
        events: Vec<KvEvent>,
    },
    /// How exact is what was said so far.
    State(KvState),
}

impl KvUpdate {
    /// It as several that come to the same, one after the other, and name at most `most_blocks`
    /// blocks each; at least 1. For who must not be busy for long.
    pub fn cut(self, most_blocks: usize) -> Vec<Self> {
        let changes = |rank, events| {
            pack(events, most_blocks).map(move |events| Self::Changes { rank, events })
        };
        match self {
            Self::State(_) => vec![self],
            Self::Changes { rank, events } => changes(rank, events).collect(),
            Self::Reset { rank, events } => {
                let changes = changes(rank, events);
                let events = Vec::new();
                iter::once(Self::Reset { rank, events })
                    .chain(changes)
                    .collect()
            }
        }
    }
}

/// How exact a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvState {
    /// Something is missing and is asked for. Until then what is known is old.
    Repairing,
    /// Everything the worker published has been applied.
    Exact {
        /// The snapshot's position from which on nothing is missing.
        since: KvPosition,
        /// What brought it about.
        by: KvRepair,
    },
}

/// What made a follower exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvRepair {
    /// The first snapshot.
    Start,
    /// The batches that were missing.
    Range,
    /// A snapshot, because the batches were not kept any more or the publisher began anew.
    Snapshot,
    /// A snapshot, because the digests differed, or because the batches that were missing could
    /// not be understood.
    Digest,
}

/// What to ask the worker's ledger for: [`KvLedger::sync`](super::KvLedger::sync).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvAsk {
    /// Up to where everything is known; nothing, if a snapshot is needed.
    pub since: Option<KvPosition>,
}

/// What the worker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvAnswer {
    /// The batches after what was known.
    Range {
        /// What is true after them.
        mark: KvMark,
        /// In order, without a gap.
        batches: Vec<KvBatch>,
    },
    /// Everything anew.
    Snapshot {
        /// What is true of it.
        mark: KvMark,
        /// Stored events of each rank; every rank of the worker is there.
        parts: Vec<(DpRank, Vec<KvEvent>)>,
    },
}

/// Follows the KV caches of one worker over a plane that loses and repeats messages.
///
/// Put in what arrives, with the time (since any fixed moment); take out updates with
/// [`next_update`](Self::next_update), and questions with [`ask`](Self::ask), which is to be called
/// again at [`next_timeout`](Self::next_timeout). Each question is answered by
/// [`answer`](Self::answer), [`failed`](Self::failed) or [`broken`](Self::broken).
///
/// It holds a few numbers for each rank and tier, and a bounded buffer during a repair.
#[derive(Debug)]
pub struct KvFollower {
    config: FollowerConfig,
    known: Option<Known>,
    repair: Option<Repair>,
    /// What came during the repair, in order.
    buffer: VecDeque<KvBatch>,
    buffer_bytes: usize,
    /// The furthest that came during the repair.
    mark: Option<KvMark>,
    pacing: Pacing,
    updates: VecDeque<KvUpdate>,
}

/// What was applied so far.
#[derive(Debug)]
struct Known {
    position: KvPosition,
    digest: KvDigest,
    since: KvPosition,
    ranks: BTreeSet<DpRank>,
}

/// A repair that is to be asked for, or was.
#[derive(Debug)]
struct Repair {
    need: Need,
    due: Duration,
    is_asked: bool,
}

/// Why there is a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing is known yet.
    Start,
    /// Batches are missing.
    Missing,
    /// The publisher began anew.
    Epoch,
    /// What is known is not what was published.
    Digest,
}

/// What news is to what is known.
enum Verdict {
    /// It is over.
    Old,
    /// It says what is known.
    Same,
    /// It is the next.
    Next,
    /// Something is missing before it.
    Early(Need),
}

impl KvFollower {
    /// Knows nothing, and asks at once. The seed decides how its waits are spread; followers have
    /// different ones.
    pub fn new(config: FollowerConfig, seed: u64) -> Self {
        Self {
            config,
            known: None,
            repair: Some(Repair {
                need: Need::Start,
                due: Duration::ZERO,
                is_asked: false,
            }),
            buffer: VecDeque::new(),
            buffer_bytes: 0,
            mark: None,
            pacing: Pacing::new(seed),
            updates: VecDeque::new(),
        }
    }

    /// A batch was published.
    pub fn batch(&mut self, now: Duration, batch: KvBatch) {
        if self.repair.is_some() {
            self.keep(batch);
        } else if let Some((need, batch)) = self.take(now, batch) {
            self.need(now, need);
            self.keep(batch);
        }
    }

    /// The publisher says where it is.
    pub fn mark(&mut self, now: Duration, mark: KvMark) {
        if self.repair.is_some() {
            let is_further = |known: KvMark| known.position < mark.position;
            if self.mark.is_none_or(is_further) {
                self.mark = Some(mark);
            }
        } else {
            self.compare(now, mark);
        }
    }

    /// Something may have been lost.
    pub fn lagged(&mut self, now: Duration) {
        if self.repair.is_none() {
            self.need(now, Need::Missing);
        }
    }

    /// The worker has answered the last question. An answer to none is ignored.
    pub fn answer(&mut self, now: Duration, answer: KvAnswer) {
        let Some(need) = self.asked() else {
            return;
        };
        let by = match answer {
            KvAnswer::Range { mark, batches } => self.range(mark, batches),
            KvAnswer::Snapshot { mark, parts } => self.snapshot(mark, parts, need),
        };
        match (by, &self.known) {
            (Some(by), Some(known)) => {
                let since = known.since;
                self.repair = None;
                let state = KvState::Exact { since, by };
                self.updates.push_back(KvUpdate::State(state));
                self.catch_up(now);
            }
            _ => self.broken(now),
        }
    }

    /// The worker's answer could not be understood. It would send the same batches again: nothing
    /// but a snapshot helps.
    pub fn broken(&mut self, now: Duration) {
        if let (Some(repair), Some(_)) = (&mut self.repair, &self.known)
            && repair.is_asked
        {
            repair.need = Need::Digest;
        }
        self.failed(now);
    }

    /// The worker could not be asked, or its answer did not come whole.
    pub fn failed(&mut self, now: Duration) {
        if self.asked().is_none() {
            return;
        }
        let due = now + self.pacing.strained();
        if let Some(repair) = &mut self.repair {
            repair.is_asked = false;
            repair.due = due;
        }
    }

    /// What to do, one after the other.
    pub fn next_update(&mut self) -> Option<KvUpdate> {
        self.updates.pop_front()
    }

    /// What to ask the worker for, if it is time; it counts as asked then.
    pub fn ask(&mut self, now: Duration) -> Option<KvAsk> {
        let repair = self.repair.as_mut()?;
        if repair.is_asked || now < repair.due {
            return None;
        }
        repair.is_asked = true;
        let since = match repair.need {
            Need::Start | Need::Digest => None,
            Need::Missing | Need::Epoch => self.known.as_ref().map(|known| known.position),
        };
        Some(KvAsk { since })
    }

    /// When to call [`ask`](Self::ask).
    pub fn next_timeout(&self) -> Option<Duration> {
        let waiting = self.repair.as_ref().filter(|repair| !repair.is_asked);
        waiting.map(|repair| repair.due)
    }

    /// The need of the repair that was asked for.
    fn asked(&self) -> Option<Need> {
        let asked = self.repair.as_ref().filter(|repair| repair.is_asked);
        asked.map(|repair| repair.need)
    }

    fn need(&mut self, now: Duration, need: Need) {
        let wait = match need {
            Need::Missing => self.pacing.range(),
            Need::Epoch | Need::Start => self.pacing.snapshot(),
            // What differs once may differ always, so each time waits longer.
            Need::Digest => self.pacing.strained(),
        };
        self.repair = Some(Repair {
            need,
            due: now + wait,
            is_asked: false,
        });
        self.updates.push_back(KvUpdate::State(KvState::Repairing));
    }

    fn judge(&self, position: KvPosition) -> Verdict {
        let Some(known) = &self.known else {
            return Verdict::Early(Need::Start);
        };
        match position.epoch.cmp(&known.position.epoch) {
            Ordering::Less => return Verdict::Old,
            Ordering::Greater => return Verdict::Early(Need::Epoch),
            Ordering::Equal => {}
        }
        let behind = known.position.sequence;
        match position.sequence {
            sequence if sequence < behind => Verdict::Old,
            sequence if sequence == behind => Verdict::Same,
            sequence if sequence - behind == 1 => Verdict::Next,
            _ => Verdict::Early(Need::Missing),
        }
    }

    /// Applies a batch that is the next; gives one back that is early, with what it needs.
    fn take(&mut self, now: Duration, batch: KvBatch) -> Option<(Need, KvBatch)> {
        match self.judge(batch.mark.position) {
            Verdict::Old | Verdict::Same => None,
            Verdict::Early(need) => Some((need, batch)),
            Verdict::Next => {
                let mark = batch.mark;
                self.apply(batch);
                self.compare(now, mark);
                None
            }
        }
    }

    fn apply(&mut self, batch: KvBatch) {
        let KvBatch { mark, rank, events } = batch;
        if let Some(known) = &mut self.known {
            for event in &events {
                known.digest.apply(rank, event);
            }
            known.position = mark.position;
            known.ranks.insert(rank);
            self.updates.push_back(KvUpdate::Changes { rank, events });
        }
    }

    /// Compares what is known with what a mark says.
    fn compare(&mut self, now: Duration, mark: KvMark) {
        match self.judge(mark.position) {
            Verdict::Old => {}
            Verdict::Same if self.has(mark) => self.pacing.eased(),
            Verdict::Same => self.need(now, Need::Digest),
            // Whatever it says, it is not here.
            Verdict::Next => self.need(now, Need::Missing),
            Verdict::Early(need) => self.need(now, need),
        }
    }

    /// Whether what is known is what `mark` says.
    fn has(&self, mark: KvMark) -> bool {
        (self.known.as_ref()).is_some_and(|known| {
            known.position == mark.position && known.digest.value() == mark.digest
        })
    }

    /// Takes the batches that were missing. `None` if that is not what they are.
    fn range(&mut self, mark: KvMark, batches: Vec<KvBatch>) -> Option<KvRepair> {
        for batch in batches {
            match self.judge(batch.mark.position) {
                Verdict::Old | Verdict::Same => {}
                Verdict::Next => self.apply(batch),
                Verdict::Early(_) => return None,
            }
        }
        if !self.has(mark) {
            return None;
        }
        self.pacing.eased();
        Some(KvRepair::Range)
    }

    /// Takes everything anew, whatever was known before: it is the worker's own word. `None` if it is
    /// not what it says.
    fn snapshot(
        &mut self,
        mark: KvMark,
        parts: Vec<(DpRank, Vec<KvEvent>)>,
        need: Need,
    ) -> Option<KvRepair> {
        let mut digest = KvDigest::default();
        for (rank, events) in &parts {
            for event in events {
                digest.apply(*rank, event);
            }
        }
        if digest.value() != mark.digest {
            return None;
        }
        let mut known = Known {
            position: mark.position,
            digest,
            since: mark.position,
            ranks: BTreeSet::new(),
        };
        for (rank, events) in parts {
            self.updates.push_back(match known.ranks.insert(rank) {
                true => KvUpdate::Reset { rank, events },
                false => KvUpdate::Changes { rank, events },
            });
        }
        let before = self.known.take().map(|before| before.ranks);
        for rank in before.iter().flatten() {
            if known.ranks.insert(*rank) {
                let events = Vec::new();
                self.updates.push_back(KvUpdate::Reset {
                    rank: *rank,
                    events,
                });
            }
        }
        self.known = Some(known);
        Some(match need {
            Need::Start => KvRepair::Start,
            Need::Digest => KvRepair::Digest,
            Need::Missing | Need::Epoch => KvRepair::Snapshot,
        })
    }

    /// Keeps a batch for after the repair.
    fn keep(&mut self, batch: KvBatch) {
        self.buffer_bytes += batch.size_bytes();
        self.buffer.push_back(batch);
        while self.buffer_bytes > self.config.buffer_bytes {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> Option<KvBatch> {
        let batch = self.buffer.pop_front()?;
        self.buffer_bytes -= batch.size_bytes();
        Some(batch)
    }

    /// Takes what came during the repair, as far as it follows on it.
    fn catch_up(&mut self, now: Duration) {
        while let Some(batch) = self.drop_oldest() {
            if let Some((need, batch)) = self.take(now, batch) {
                self.buffer_bytes += batch.size_bytes();
                self.buffer.push_front(batch);
                self.need(now, need);
            }
            if self.repair.is_some() {
                return;
            }
        }
        self.buffer = VecDeque::new();
        if let Some(mark) = self.mark.take() {
            self.compare(now, mark);
        }
    }
}
