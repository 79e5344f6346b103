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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;

    use forebay_tokens::{BlockSize, RequestId, Tier};
    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::{Capabilities, EngineInfo, GenerateRequest, GenerateStream, Load};

    /// What one subscription brings before it ends.
    type Script = Vec<Result<KvEventBatch, Error>>;

    /// Has only KV events: a script for each subscription, then silence.
    struct Scripted {
        info: EngineInfo,
        scripts: Mutex<VecDeque<Result<Script, Error>>>,
    }

    impl Engine for Scripted {
        fn info(&self) -> &EngineInfo {
            &self.info
        }

        fn generate(&self, _: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
            async { Err(error(ErrorClass::Unsupported, "none")) }.boxed()
        }

        fn abort(&self, _: &RequestId) {}

        fn load(&self) -> Load {
            Load::default()
        }

        fn kv_events(&self) -> Result<KvEventStream, Error> {
            match self.scripts.lock().pop_front() {
                Some(script) => script.map(|script| stream::iter(script).boxed()),
                None => Ok(stream::pending().boxed()),
            }
        }
    }

    fn follow(
        scripts: impl IntoIterator<Item = Result<Script, Error>>,
    ) -> BoxStream<'static, KvUpdate> {
        follow_kv_events(Arc::new(Scripted {
            info: EngineInfo {
                model: "scripted".into(),
                capabilities: Capabilities::KV_EVENTS,
                context_length: 2,
                vocabulary_size: 2,
                block_size: BlockSize::new(1).unwrap(),
                kv_blocks: 0,
                eos_token_ids: vec![],
                data_parallel_ranks: 2,
            },
            scripts: Mutex::new(scripts.into_iter().collect()),
        }))
    }

    fn error(class: ErrorClass, reason: &'static str) -> Error {
        Error::new(class, reason, "scripted")
    }

    /// Events are told apart by their tier.
    fn batch(rank: u32, tier: Tier) -> Result<KvEventBatch, Error> {
        Ok(KvEventBatch {
            sequence: 0,
            rank: DpRank(rank),
            events: vec![KvEvent::Cleared { tier }],
        })
    }

    fn reset(rank: u32, tier: Tier) -> KvUpdate {
        KvUpdate::Reset {
            rank: DpRank(rank),
            events: vec![KvEvent::Cleared { tier }],
        }
    }

    fn changes(rank: u32, tier: Tier) -> KvUpdate {
        KvUpdate::Changes {
            rank: DpRank(rank),
            events: vec![KvEvent::Cleared { tier }],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_rank_begins_with_a_reset_and_anew_after_a_loss() {
        let begun = Instant::now();
        let lagged = Err(error(ErrorClass::Unavailable, LAGGED));
        let mut updates = follow([
            Ok(vec![
                batch(0, Tier::G1),
                batch(1, Tier::G1),
                batch(0, Tier::G2),
                batch(1, Tier::G2),
                lagged,
            ]),
            Ok(vec![
                batch(1, Tier::G3),
                batch(0, Tier::G3),
                batch(0, Tier::G4),
            ]),
        ]);
        for expected in [
            reset(0, Tier::G1),
            reset(1, Tier::G1),
            changes(0, Tier::G2),
            changes(1, Tier::G2),
            reset(1, Tier::G3),
            reset(0, Tier::G3),
            changes(0, Tier::G4),
        ] {
            assert_eq!(updates.next().await, Some(expected));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO, "repaired at once");
        assert!(updates.next().now_or_never().is_none(), "it goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_cannot_be_reached_is_tried_less_and_less_often() {
        let begun = Instant::now();
        let gone = || error(ErrorClass::Unavailable, "gone");
        let failures = (0..10).map(|attempt| match attempt % 3 {
            0 => Err(gone()),
            1 => Ok(vec![Err(gone())]),
            _ => Ok(vec![]),
        });
        let mut updates = follow(failures.chain([Ok(vec![batch(0, Tier::G1)])]));
        assert_eq!(updates.next().await, Some(reset(0, Tier::G1)));
        // 20 ms, 40, ... 1280, and then 2 s each.
        let waits = FIRST_WAIT * 127 + LONGEST_WAIT * 3;
        assert_eq!(begun.elapsed(), waits);
    }

    #[tokio::test]
    async fn an_engine_without_kv_events_has_no_updates() {
        let unsupported = || error(ErrorClass::Unsupported, "unsupported_operation");
        assert_eq!(follow([Err(unsupported())]).next().await, None);
        let remote = Ok(vec![Err(unsupported())]);
        assert_eq!(follow([remote]).next().await, None);
    }
}
