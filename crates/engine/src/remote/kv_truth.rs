use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::events::{KvLedger, KvPosition};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{ResponseStream, TaskKind, Tasks};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::kv_figures::{KvCounts, KvFigures};
use super::kv_frames::{SyncFrames, encode_sync};

/// How many followers are told at a time what they have missed: a snapshot is a copy of what the
/// ledger knows. Others wait.
const TURNS: usize = 4;
/// The bytes of the frames that are made at a time, but for the last of them: a range may have many
/// frames of a block each.
const TURN_BYTES: usize = 128 << 10;
/// How long a follower may take for the next part; who takes longer is told no more.
const READER_LIMIT: Duration = Duration::from_secs(10);

/// The newest ledger of a worker's KV events, as its publisher writes it and the handler reads it.
#[derive(Clone, Debug)]
pub(super) struct KvTruth {
    told: Arc<Mutex<Option<Told>>>,
    counts: Arc<KvCounts>,
    turns: Arc<Semaphore>,
}

/// A ledger that has the whole of the engine's caches.
#[derive(Clone, Debug)]
struct Told {
    ledger: Arc<Mutex<KvLedger>>,
    tasks: Tasks,
}

/// What is sent of an answer: frames, then `None`, or an error.
type Sent = Result<Option<Bytes>, Error>;

impl KvTruth {
    pub(super) fn new() -> Self {
        Self {
            told: Arc::default(),
            counts: Arc::default(),
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// From now on followers are told from this ledger.
    pub(super) fn tell(&self, ledger: Arc<Mutex<KvLedger>>, tasks: Tasks) {
        *self.told.lock() = Some(Told { ledger, tasks });
    }

    /// What the publisher has to keep up to date.
    pub(super) fn counts(&self) -> &Arc<KvCounts> {
        &self.counts
    }

    /// What it comes to now.
    pub(super) fn figures(&self) -> KvFigures {
        self.counts.figures()
    }

    /// The frames that answer a `KvSyncRequest`, made off the async threads, some at a time, when
    /// those before them are on their way.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub(super) fn sync(&self, since: Option<KvPosition>) -> ResponseStream {
        let told = self.told.lock().clone();
        let Some(Told { ledger, tasks }) = told else {
            return stream::iter([Err(unpublished())]).boxed();
        };
        let (frames, sent) = mpsc::channel(1);
        let tell = self.clone().send(since, ledger, tasks.clone(), frames);
        tasks.spawn(TaskKind::Request, "kv_sync", tell);
        stream::unfold(Some(sent), receive).boxed()
    }

    /// Sends an answer for as long as somebody takes it.
    async fn send(
        self,
        since: Option<KvPosition>,
        ledger: Arc<Mutex<KvLedger>>,
        tasks: Tasks,
        frames: mpsc::Sender<Sent>,
    ) {
        let turn = tokio::select! {
            biased;
            () = frames.closed() => return,
            turn = self.turns.acquire() => turn,
        };
        let _turn = turn.expect("the semaphore is never closed");
        let begin = move || {
            let sync = ledger.lock().sync(since);
            self.counts.answer(&sync.answer);
            encode_sync(sync)
        };
        let mut parts = match tasks.run_blocking("kv_sync", begin).await {
            Ok(parts) => parts,
            Err(error) => {
                // Who has gone needs no error.
                let _ = frames.send(Err(stopping(error))).await;
                return;
            }
        };
        loop {
            let make = move || (some(&mut parts), parts);
            let Ok((made, rest)) = tasks.run_blocking("kv_sync_part", make).await else {
                return;
            };
            parts = rest;
            for frame in made {
                let is_last = frame.is_none();
                let taken = timeout(READER_LIMIT, frames.send(Ok(frame))).await;
                if is_last || !matches!(taken, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}

/// The next frames of an answer, of [`TURN_BYTES`], or up to its end, which is `None`.
fn some(parts: &mut SyncFrames) -> Vec<Option<Bytes>> {
    let (mut made, mut bytes) = (Vec::new(), 0);
    while bytes < TURN_BYTES {
        let Some(frame) = parts.next() else {
            made.push(None);
            break;
        };
        bytes += frame.len();
        made.push(Some(frame));
    }
    made
}

/// The next frame of an answer, and what it comes from, if that has not ended.
async fn receive(
    sent: Option<mpsc::Receiver<Sent>>,
) -> Option<(Result<Bytes, Error>, Option<mpsc::Receiver<Sent>>)> {
    let mut sent = sent?;
    match sent.recv().await.unwrap_or_else(|| Err(abandoned())) {
        Ok(frame) => frame.map(|frame| (Ok(frame), Some(sent))),
        Err(error) => Some((Err(error), None)),
    }
}

fn unpublished() -> Error {
    let message = "the worker does not publish its KV events yet";
    Error::new(ErrorClass::Unavailable, "kv_events_unpublished", message)
}

/// Nobody took the answer for long, or the process ends.
fn abandoned() -> Error {
    let message = "the worker does not go on to tell what it has cached";
    Error::new(ErrorClass::Unavailable, "kv_sync_abandoned", message)
}

/// The work was not done, as the process ends.
pub(super) fn stopping(error: forebay_runtime::BlockingError) -> Error {
    let message = "the worker is stopping";
    Error::new(ErrorClass::Unavailable, "worker_stopped", message)
        .with_diagnostic(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_mux::events::LedgerConfig;
    use forebay_observability::Registry;
    use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier};

    use super::*;

    /// A ledger whose snapshot has a frame for each of so many blocks, and two more.
    fn truth_of(blocks: u64) -> KvTruth {
        let config = LedgerConfig {
            max_batch_blocks: 1,
            ..LedgerConfig::default()
        };
        let mut ledger = KvLedger::new(config, 1);
        let event = KvEvent::Stored {
            tier: Tier::G1,
            group: CacheGroup(0),
            parent: None,
            blocks: (0..blocks).map(RoutingHash).collect(),
        };
        ledger.replace(DpRank(0), vec![event]);
        let truth = KvTruth::new();
        truth.tell(Arc::new(Mutex::new(ledger)), Tasks::new(&Registry::new()));
        truth
    }

    /// A ledger whose snapshot has 102 frames.
    fn truth() -> KvTruth {
        truth_of(100)
    }

    async fn whole(truth: &KvTruth) -> usize {
        let frames: Vec<_> = truth.sync(None).collect().await;
        assert!(frames.iter().all(Result::is_ok));
        frames.len()
    }

    #[tokio::test]
    async fn an_answer_of_many_turns_is_whole() {
        let truth = truth_of(30_000);
        let frames: Vec<_> = truth.sync(None).collect().await;
        let bytes = frames.iter().map(|frame| frame.as_ref().unwrap().len());
        assert!(bytes.sum::<usize>() > 2 * TURN_BYTES);
        assert_eq!(frames.len(), 30_002);
    }

    #[tokio::test(start_paused = true)]
    async fn readers_that_stall_give_way_in_the_end() {
        let truth = truth();
        let mut stalled = Vec::new();
        for _ in 0..TURNS {
            let mut frames = truth.sync(None);
            frames.next().await.unwrap().unwrap();
            stalled.push(frames);
        }
        // There is no turn for a fifth: it would hold another copy.
        let early = timeout(READER_LIMIT / 2, whole(&truth)).await;
        assert!(early.is_err());
        assert_eq!(whole(&truth).await, 102);
        for frames in stalled {
            let rest: Vec<_> = frames.collect().await;
            let error = rest.last().unwrap().as_ref().unwrap_err();
            assert_eq!(error.reason, "kv_sync_abandoned");
        }
        assert_eq!(truth.turns.available_permits(), TURNS);
    }

    #[tokio::test(start_paused = true)]
    async fn readers_that_go_leave_their_turns_at_once() {
        let truth = truth();
        for _ in 0..3 * TURNS {
            truth.sync(None).next().await.unwrap().unwrap();
        }
        let told = timeout(READER_LIMIT / 2, whole(&truth)).await;
        assert_eq!(told.unwrap(), 102);
        assert_eq!(truth.figures().snapshots, 3 * TURNS as u64 + 1);
    }
}
