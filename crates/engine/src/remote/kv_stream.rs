//! The KV events of a worker, as its engine would give them.

use std::collections::{BTreeMap, VecDeque};

use forebay_mux::events::{KvState, KvUpdate};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{DpRank, KvEvent};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};

use super::kv_publisher::LAGGED;
use crate::{KvEventBatch, KvEventStream};

/// A batch of each of `ranks` that says what it holds, then the changes. What can only be told
/// anew ends it.
pub(super) fn kv_stream(updates: BoxStream<'static, KvUpdate>, ranks: u32) -> KvEventStream {
    let ranks = (0..ranks).map(|rank| (DpRank(rank), Vec::new())).collect();
    let batches = Batches {
        updates,
        first: Some(ranks),
        ready: VecDeque::new(),
        sequences: BTreeMap::new(),
    };
    stream::unfold(Some(batches), |batches| async {
        let mut batches = batches?;
        match batches.next().await {
            Ok(batch) => Some((Ok(batch), Some(batches))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Batches {
    updates: BoxStream<'static, KvUpdate>,
    /// What each rank holds, until all of it has come.
    first: Option<BTreeMap<DpRank, Vec<KvEvent>>>,
    ready: VecDeque<KvEventBatch>,
    /// Of the next batch of each rank.
    sequences: BTreeMap<DpRank, u64>,
}

impl Batches {
    async fn next(&mut self) -> Result<KvEventBatch, Error> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let update = self.updates.next().await;
            self.take(update.ok_or_else(lagged)?)?;
        }
    }

    fn take(&mut self, update: KvUpdate) -> Result<(), Error> {
        match (update, &mut self.first) {
            (
                KvUpdate::Reset { rank, events } | KvUpdate::Changes { rank, events },
                Some(first),
            ) => {
                first.entry(rank).or_default().extend(events);
            }
            (KvUpdate::Changes { rank, events }, None) => self.push(rank, events),
            (KvUpdate::Reset { .. }, None) => return Err(lagged()),
            (KvUpdate::State(KvState::Exact { .. }), _) => {
                for (rank, events) in self.first.take().into_iter().flatten() {
                    self.push(rank, events);
                }
            }
            (KvUpdate::State(KvState::Repairing), _) => {}
        }
        Ok(())
    }

    fn push(&mut self, rank: DpRank, events: Vec<KvEvent>) {
        let next = self.sequences.entry(rank).or_default();
        let sequence = *next;
        *next += 1;
        self.ready.push_back(KvEventBatch {
            sequence,
            rank,
            events,
        });
    }
}

fn lagged() -> Error {
    let message = "KV events were lost";
    Error::new(ErrorClass::Unavailable, LAGGED, message)
}
