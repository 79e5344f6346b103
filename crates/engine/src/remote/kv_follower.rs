use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{DpRank, KvEvent};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tokio::time::sleep;

use super::kv_publisher::LAGGED;
use crate::{Engine, KvEventBatch, KvEventStream};

/// The wait before the first new attempt to subscribe; each one after it waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What a follower of an engine's KV caches is to do.
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
}

/// Follows the KV caches of an engine, near or remote, for as long as the stream is polled.
///
/// Whatever is lost on the way is repaired by a [`KvUpdate::Reset`] of every rank. While the engine
/// cannot be reached the stream is silent and tries again, at least every 2 seconds: what is known
/// is a hint that may be old, and who is gone is discovery's to say. It ends at once if the engine
/// has no KV events.
///
/// Needs a tokio runtime with time.
pub fn follow_kv_events(engine: Arc<dyn Engine>) -> BoxStream<'static, KvUpdate> {
    let follower = Follower {
        engine,
        subscription: None,
        wait: FIRST_WAIT,
    };
    stream::unfold(follower, |mut follower| async {
        let update = follower.next().await?;
        Some((update, follower))
    })
    .boxed()
}

struct Follower {
    engine: Arc<dyn Engine>,
    subscription: Option<Subscription>,
    /// Before the next attempt, if the last one brought nothing.
    wait: Duration,
}

struct Subscription {
    events: KvEventStream,
    /// Whose snapshot has come.
    ranks: HashSet<DpRank>,
}

impl Follower {
    async fn next(&mut self) -> Option<KvUpdate> {
        loop {
            let subscription = match &mut self.subscription {
                Some(subscription) => subscription,
                None => match self.engine.kv_events() {
                    Ok(events) => self.subscription.insert(Subscription {
                        events,
                        ranks: HashSet::new(),
                    }),
                    Err(error) if error.class == ErrorClass::Unsupported => return None,
                    Err(_) => {
                        self.pause().await;
                        continue;
                    }
                },
            };
            match subscription.events.next().await {
                Some(Ok(batch)) => {
                    self.wait = FIRST_WAIT;
                    return Some(subscription.update(batch));
                }
                Some(Err(error)) if error.class == ErrorClass::Unsupported => return None,
                ended => self.lose(ended.and_then(Result::err)).await,
            }
        }
    }

    /// Gives a subscription up. One that fell behind is taken up anew at once.
    async fn lose(&mut self, error: Option<Error>) {
        self.subscription = None;
        if error.is_none_or(|error| error.reason != LAGGED) {
            self.pause().await;
        }
    }

    async fn pause(&mut self) {
        sleep(self.wait).await;
        self.wait = LONGEST_WAIT.min(2 * self.wait);
    }
}

impl Subscription {
    fn update(&mut self, batch: KvEventBatch) -> KvUpdate {
        let KvEventBatch { rank, events, .. } = batch;
        match self.ranks.insert(rank) {
            true => KvUpdate::Reset { rank, events },
            false => KvUpdate::Changes { rank, events },
        }
    }
}
