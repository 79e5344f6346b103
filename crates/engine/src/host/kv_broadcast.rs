use forebay_tokens::{DpRank, KvEvent};
use futures::{StreamExt as _, stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::{Error, ErrorClass, KvEventBatch, KvEventStream};

/// Batches that a subscriber may be behind: one for each of so many steps.
const BATCHES: usize = 1024;

/// The changes of one rank's KV cache, for any number of subscribers: numbers batches and sends them
/// to whoever subscribed. Batch 0 stands for the empty cache of the beginning.
#[derive(Debug)]
pub struct KvBroadcast {
    sender: broadcast::Sender<KvEventBatch>,
    rank: DpRank,
    /// Of the last batch.
    sequence: u64,
}

/// A subscriber's part, to be made a stream.
#[derive(Debug)]
pub struct KvSubscription {
    snapshot: KvEventBatch,
    changes: broadcast::Receiver<KvEventBatch>,
}

impl KvBroadcast {
    /// Of a rank whose cache is empty.
    pub fn new(rank: DpRank) -> Self {
        let (sender, _) = broadcast::channel(BATCHES);
        Self {
            sender,
            rank,
            sequence: 0,
        }
    }

    /// Sends what changed, if anything did.
    pub fn publish(&mut self, events: Vec<KvEvent>) {
        if !events.is_empty() {
            self.sequence += 1;
            let batch = self.batch(events);
            // No receiver is no failure.
            let _ = self.sender.send(batch);
        }
    }

    /// Subscribes to what is published from now on. `snapshot` is what the cache holds now;
    /// everything before it must have been published.
    pub fn subscribe(&self, snapshot: Vec<KvEvent>) -> KvSubscription {
        KvSubscription {
            snapshot: self.batch(snapshot),
            changes: self.sender.subscribe(),
        }
    }

    fn batch(&self, events: Vec<KvEvent>) -> KvEventBatch {
        KvEventBatch {
            sequence: self.sequence,
            rank: self.rank,
            events,
        }
    }
}

impl KvSubscription {
    /// First the snapshot, then each change.
    pub fn into_stream(self) -> KvEventStream {
        let changes = stream::unfold(Some(self.changes), |changes| async {
            let mut changes = changes?;
            match changes.recv().await {
                Ok(batch) => Some((Ok(batch), Some(changes))),
                Err(RecvError::Lagged(batches)) => Some((Err(lagged(batches)), None)),
                Err(RecvError::Closed) => None,
            }
        });
        stream::once(async { Ok(self.snapshot) })
            .chain(changes)
            .boxed()
    }
}

fn lagged(batches: u64) -> Error {
    let message = "the subscriber is too far behind the KV events";
    Error::new(ErrorClass::Unavailable, "kv_events_lagged", message)
        .with_diagnostic(format!("{batches} batches of KV events were lost"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_tokens::{CacheGroup, RoutingHash, Tier};
    use futures::executor::block_on;

    use super::*;

    fn stored(hash: u64) -> Vec<KvEvent> {
        vec![KvEvent::Stored {
            tier: Tier::G1,
            group: CacheGroup(0),
            parent: None,
            blocks: vec![RoutingHash(hash)],
        }]
    }

    #[test]
    fn a_subscriber_gets_the_snapshot_and_then_each_change() {
        let mut broadcast = KvBroadcast::new(DpRank(0));
        let first = broadcast.subscribe(vec![]);
        broadcast.publish(stored(1));
        broadcast.publish(vec![]);
        let second = broadcast.subscribe(stored(1));
        broadcast.publish(stored(2));
        drop(broadcast);

        let all = |subscription: KvSubscription| -> Vec<_> {
            let batches = block_on(subscription.into_stream().collect::<Vec<_>>());
            batches
                .into_iter()
                .map(Result::unwrap)
                .map(|batch| (batch.sequence, batch.events))
                .collect()
        };
        assert_eq!(all(first), [(0, vec![]), (1, stored(1)), (2, stored(2))]);
        assert_eq!(all(second), [(1, stored(1)), (2, stored(2))]);
    }

    #[test]
    fn who_falls_behind_gets_an_error_and_the_end() {
        let mut broadcast = KvBroadcast::new(DpRank(0));
        let subscription = broadcast.subscribe(vec![]);
        for hash in 0..=BATCHES as u64 {
            broadcast.publish(stored(hash));
        }
        let batches = block_on(subscription.into_stream().collect::<Vec<_>>());
        let [Ok(snapshot), Err(error)] = &batches[..] else {
            panic!("{batches:?}");
        };
        assert_eq!(snapshot.sequence, 0);
        assert_eq!(error.class, ErrorClass::Unavailable);
        assert_eq!(error.reason, "kv_events_lagged");
    }
}
