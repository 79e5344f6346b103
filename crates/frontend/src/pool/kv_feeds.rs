use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;

use forebay_engine::remote::{KvRepairs, KvState, KvUpdate, RemoteEngine};
use forebay_engine::{Capabilities, Engine as _};
use forebay_router::WorkerRank;
use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::future::pending;
use futures::stream::{self, AbortHandle, BoxStream, SelectAll};
use tokio::task::yield_now;
use tracing::debug;

use super::WorkerPool;

/// How many blocks are taken at a time, under one lock; then others go first.
const PIECE_BLOCKS: usize = 2048;

/// The KV events of workers, on their way into the pools that they are in.
#[derive(Default)]
pub(crate) struct KvFeeds {
    /// Bounds how many workers are asked at a time for what is missing.
    repairs: KvRepairs,
    workers: HashMap<WorkerId, Fed>,
    updates: SelectAll<BoxStream<'static, (WorkerId, KvUpdate)>>,
    /// What is left of the update that came last, in pieces.
    pieces: VecDeque<(WorkerId, KvUpdate)>,
}

/// A worker whose events are taken.
struct Fed {
    pool: WorkerPool,
    /// Ends its events.
    events: AbortHandle,
}

impl KvFeeds {
    /// Takes the events of a worker of a pool from now on, if prompts are routed by prefixes there.
    pub(crate) fn add(&mut self, worker: WorkerId, pool: WorkerPool, engine: &RemoteEngine) {
        self.remove(worker);
        let capabilities = engine.info().capabilities;
        let updates = match pool.is_kv() && capabilities.contains(Capabilities::KV_EVENTS) {
            true => {
                pool.set_kv_state(worker, KvState::Repairing);
                engine.kv_updates(&self.repairs)
            }
            false => stream::empty().boxed(),
        };
        let updates = updates.map(move |update| (worker, update));
        let (updates, events) = stream::abortable(updates);
        self.updates.push(updates.boxed());
        self.workers.insert(worker, Fed { pool, events });
    }

    /// Takes no more events of a worker.
    pub(crate) fn remove(&mut self, worker: WorkerId) {
        if let Some(fed) = self.workers.remove(&worker) {
            fed.events.abort();
            self.pieces.retain(|(of, _)| *of != worker);
        }
    }

    /// Takes updates as they come, and does not end. Cancel-safe.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            while let Some((worker, piece)) = self.pieces.pop_front() {
                self.apply(worker, piece);
                yield_now().await;
            }
            let Some((worker, update)) = self.updates.next().await else {
                return pending().await;
            };
            let pieces = update.cut(PIECE_BLOCKS).into_iter();
            self.pieces.extend(pieces.map(|piece| (worker, piece)));
        }
    }

    fn apply(&mut self, worker: WorkerId, update: KvUpdate) {
        // It left while its update was on the way.
        let Some(fed) = self.workers.get_mut(&worker) else {
            return;
        };
        let (rank, events) = match update {
            KvUpdate::Reset { rank, events } => {
                fed.pool.forget_blocks(WorkerRank::new(worker, rank));
                (rank, events)
            }
            KvUpdate::Changes { rank, events } => (rank, events),
            KvUpdate::State(state) => {
                debug!(worker = worker.0, ?state, "kv events");
                return fed.pool.set_kv_state(worker, state);
            }
        };
        fed.pool.apply(WorkerRank::new(worker, rank), &events);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use forebay_engine::EngineInfo;
    use forebay_engine::remote::{KvPosition, KvRepair, WorkerCard, engine_endpoint};
    use forebay_observability::Registry;
    use forebay_router::RouterConfig;
    use forebay_runtime::{Instance, Planes, Tasks};
    use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier};
    use futures::FutureExt as _;

    use super::*;
    use crate::sample;

    const WORKER: WorkerId = WorkerId(1);

    /// A pool of one worker that nobody can reach.
    fn pool() -> (WorkerPool, Arc<RemoteEngine>) {
        let model = EngineInfo {
            capabilities: Capabilities::GENERATE | Capabilities::KV_EVENTS,
            ..sample::engine_info("model")
        };
        let instance = Instance {
            endpoint: engine_endpoint("test").unwrap(),
            worker: WORKER,
            address: "nowhere".into(),
            card: WorkerCard::new("model", model.clone()).encode(),
        };
        let tasks = Tasks::new(&Registry::new());
        let engine = RemoteEngine::new(instance, &Planes::in_process(), &tasks);
        let engine = Arc::new(engine.unwrap());
        let pool = WorkerPool::new(model, &RouterConfig::default()).unwrap();
        pool.add(WORKER, engine.clone()).unwrap();
        (pool, engine)
    }

    #[tokio::test]
    async fn a_pool_knows_how_exact_it_is_and_what_was_repaired() {
        let (pool, engine) = pool();
        assert_eq!(pool.workers()[0].kv, None);

        let mut feeds = KvFeeds::default();
        feeds.add(WORKER, pool.clone(), &engine);
        assert_eq!(pool.workers()[0].kv, Some(KvState::Repairing));
        let since = KvPosition {
            epoch: 1,
            sequence: 2,
        };
        for by in [KvRepair::Start, KvRepair::Range, KvRepair::Range] {
            let state = KvState::Exact { since, by };
            feeds.apply(WORKER, KvUpdate::State(state));
            assert_eq!(pool.workers()[0].kv, Some(state));
        }
        assert_eq!(pool.counts().repairs, [2, 0, 0]);
        feeds.apply(WORKER, KvUpdate::State(KvState::Repairing));
        assert_eq!(pool.workers()[0].kv, Some(KvState::Repairing));
    }

    #[tokio::test]
    async fn much_that_has_changed_is_taken_in_pieces_and_none_is_lost_between_them() {
        let (pool, engine) = pool();
        let mut feeds = KvFeeds::default();
        feeds.add(WORKER, pool.clone(), &engine);
        let stored = |hashes: std::ops::Range<u64>| KvEvent::Stored {
            tier: Tier::G1,
            group: CacheGroup(0),
            parent: None,
            blocks: hashes.map(RoutingHash).collect(),
        };
        let told = |update| stream::iter([(WORKER, update)]).boxed();
        let (rank, events) = (DpRank(0), vec![stored(0..16_384)]);
        feeds.updates.push(told(KvUpdate::Reset { rank, events }));

        let known = || pool.workers()[0].known_blocks;
        let mut pieces = 0;
        while known() < 16_384 {
            // It is dropped where it lets others go first.
            assert!(feeds.run().now_or_never().is_none());
            pieces += 1;
        }
        assert!(pieces >= 8, "{pieces}");

        // What is left of a worker that has gone is not its successor's.
        let events = vec![stored(20_000..36_384)];
        feeds.updates.push(told(KvUpdate::Changes { rank, events }));
        assert!(feeds.run().now_or_never().is_none());
        assert!(known() < 2 * 16_384);
        pool.remove(WORKER);
        pool.add(WORKER, engine.clone()).unwrap();
        feeds.add(WORKER, pool.clone(), &engine);
        for _ in 0..100 {
            assert!(feeds.run().now_or_never().is_none());
        }
        assert_eq!(known(), 0);
    }
}
