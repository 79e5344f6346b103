use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_mux::events::{KvBatch, KvLedger, KvMarks, LedgerConfig};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{Publisher, Tasks};
use forebay_tokens::DpRank;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::kv_figures::KvCounts;
use super::kv_frames::{encode_batch, encode_mark};
use super::kv_truth::{KvTruth, stopping};
use crate::{Engine, KvEventBatch};

/// The reason of an error that says: what was received is incomplete, subscribe anew.
pub(super) const LAGGED: &str = "kv_events_lagged";

/// Publishes the changes of an engine's KV caches to its [`kv_topic`](super::kv_topic); made by
/// [`EngineHandler::kv_publisher`](super::EngineHandler::kv_publisher).
///
/// It keeps what the engine has announced in a ledger, from which the handler answers followers that
/// missed something: an engine need not be able to tell it again. Followers can be answered once
/// the engine has told of all its ranks. After the last change it says where it is from time to
/// time, so that the loss of that change is noticed.
///
/// What the engine itself loses on the way to its publisher is repaired by what it tells anew.
pub struct KvPublisher {
    engine: Arc<dyn Engine>,
    publisher: Box<dyn Publisher>,
    truth: KvTruth,
    tasks: Tasks,
    ledger: Arc<Mutex<KvLedger>>,
    /// Of which the ledger knows, until all are there.
    ranks: HashSet<DpRank>,
    is_told: bool,
    started: Instant,
    marks: KvMarks,
}

impl KvPublisher {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        publisher: Box<dyn Publisher>,
        truth: KvTruth,
        tasks: Tasks,
    ) -> Self {
        let ledger = KvLedger::new(LedgerConfig::default(), publisher.epoch());
        truth.counts().ledger(&ledger);
        Self {
            engine,
            publisher,
            truth,
            tasks,
            ledger: Arc::new(Mutex::new(ledger)),
            ranks: HashSet::new(),
            is_told: false,
            started: Instant::now(),
            marks: KvMarks::after_change(Duration::ZERO),
        }
    }

    /// Publishes until the engine ends its events, and gives the error it did that with. Who goes
    /// on after it makes a new publisher.
    ///
    /// Dropping the future loses events of the engine: go on with `run` again, which asks the
    /// engine anew.
    pub async fn run(&mut self) -> Error {
        loop {
            let error = self.run_once().await;
            if error.reason != LAGGED {
                return error;
            }
        }
    }

    /// Publishes one subscription.
    async fn run_once(&mut self) -> Error {
        let mut events = match self.engine.kv_events() {
            Ok(events) => events,
            Err(error) => return error,
        };
        let mut ranks = HashSet::new();
        loop {
            let batch = tokio::select! {
                biased;
                batch = events.next() => batch,
                () = sleep_until(self.started + self.marks.due()) => {
                    if self.marks.take(self.started.elapsed()) {
                        self.mark();
                    }
                    continue;
                }
            };
            let taken = match batch {
                Some(Ok(batch)) if ranks.insert(batch.rank) => self.replace(batch).await,
                Some(Ok(batch)) => self.change(batch).await,
                Some(Err(error)) => Err(error),
                None => {
                    let message = "the engine has ended its KV events";
                    let reason = "kv_events_ended";
                    Err(Error::new(ErrorClass::Unavailable, reason, message))
                }
            };
            if let Err(error) = taken {
                return error;
            }
        }
    }

    /// Takes what has changed.
    async fn change(&mut self, batch: KvEventBatch) -> Result<(), Error> {
        let batches = match self.change_at_once(batch) {
            Ok(batches) => batches,
            Err(KvEventBatch { rank, events, .. }) => {
                let change = move |ledger: &mut KvLedger| ledger.change(rank, events);
                self.change_in_turn("kv_change", change).await?
            }
        };
        self.publish(&batches);
        Ok(())
    }

    /// Gives the change back, if somebody copies a snapshot now, which takes long.
    fn change_at_once(&self, batch: KvEventBatch) -> Result<Vec<Arc<KvBatch>>, KvEventBatch> {
        match self.ledger.try_lock() {
            Some(mut ledger) => {
                let change = |ledger: &mut KvLedger| ledger.change(batch.rank, batch.events);
                Ok(counted(&mut ledger, self.truth.counts(), change))
            }
            None => Err(batch),
        }
    }

    /// Changes the ledger off the async threads, however long that takes.
    async fn change_in_turn(
        &mut self,
        name: &'static str,
        change: impl FnOnce(&mut KvLedger) -> Vec<Arc<KvBatch>> + Send + 'static,
    ) -> Result<Vec<Arc<KvBatch>>, Error> {
        let (ledger, counts) = (self.ledger.clone(), self.truth.counts().clone());
        let change = move || counted(&mut ledger.lock(), &counts, change);
        let changed = self.tasks.run_blocking(name, change).await;
        changed.map_err(stopping)
    }

    /// Takes what a rank holds, at the beginning of a subscription.
    async fn replace(&mut self, batch: KvEventBatch) -> Result<(), Error> {
        let KvEventBatch { rank, events, .. } = batch;
        let replace = move |ledger: &mut KvLedger| ledger.replace(rank, events);
        let batches = self.change_in_turn("kv_replace", replace).await?;
        self.publish(&batches);
        self.ranks.insert(rank);
        let ranks = self.engine.info().data_parallel_ranks as usize;
        if !self.is_told && self.ranks.len() >= ranks {
            self.is_told = true;
            self.truth.tell(self.ledger.clone(), self.tasks.clone());
            // Followers of an earlier publisher learn of the new epoch.
            self.publisher
                .publish(encode_mark(self.ledger.lock().mark()));
        }
        Ok(())
    }

    /// Nothing goes out before followers can be answered: they start from a snapshot then.
    fn publish(&mut self, batches: &[Arc<KvBatch>]) {
        if !self.is_told {
            return;
        }
        for batch in batches {
            self.publisher.publish(encode_batch(batch));
        }
        if !batches.is_empty() {
            self.marks = KvMarks::after_change(self.started.elapsed());
        }
    }

    fn mark(&mut self) {
        // While somebody copies a snapshot there is none: the next will do.
        let ledger = self.ledger.try_lock();
        let mark = ledger.map(|ledger| ledger.mark());
        if let Some(mark) = mark.filter(|_| self.is_told) {
            self.publisher.publish(encode_mark(mark));
        }
    }
}

/// What a change of the ledger gives, once it is counted.
fn counted<T>(
    ledger: &mut KvLedger,
    counts: &KvCounts,
    change: impl FnOnce(&mut KvLedger) -> T,
) -> T {
    let changed = change(ledger);
    counts.ledger(ledger);
    changed
}

impl fmt::Debug for KvPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPublisher")
            .field("engine", self.engine.info())
            .field("epoch", &self.publisher.epoch())
            .finish_non_exhaustive()
    }
}
