use std::collections::{HashMap, HashSet};
use std::convert::Infallible;

use forebay_engine::remote::{KvRepairs, KvUpdate, RemoteEngine};
use forebay_router::WorkerRank;
use forebay_tokens::{DpRank, WorkerId};
use futures::StreamExt as _;
use futures::future::pending;
use futures::stream::{self, AbortHandle, BoxStream, SelectAll};

use super::WorkerPool;

/// The KV events of workers, on their way into the pools that they are in.
#[derive(Default)]
pub(crate) struct KvFeeds {
    /// Bounds how many workers are asked at a time for what is missing.
    repairs: KvRepairs,
    workers: HashMap<WorkerId, Fed>,
    updates: SelectAll<BoxStream<'static, (WorkerId, KvUpdate)>>,
}

/// A worker whose events are taken.
struct Fed {
    pool: WorkerPool,
    /// Ends its events.
    events: AbortHandle,
    /// Whose cache is known.
    ranks: HashSet<DpRank>,
}

impl KvFeeds {
    /// Takes the events of a worker of a pool from now on, if prompts are routed by prefixes there.
    pub(crate) fn add(&mut self, worker: WorkerId, pool: WorkerPool, engine: &RemoteEngine) {
        self.remove(worker);
        let updates = match pool.is_kv() {
            true => engine.kv_updates(&self.repairs),
            false => stream::empty().boxed(),
        };
        let updates = updates.map(move |update| (worker, update));
        let (updates, events) = stream::abortable(updates);
        self.updates.push(updates.boxed());
        let fed = Fed {
            pool,
            events,
            ranks: HashSet::new(),
        };
        self.workers.insert(worker, fed);
    }

    /// Takes no more events of a worker.
    pub(crate) fn remove(&mut self, worker: WorkerId) {
        if let Some(fed) = self.workers.remove(&worker) {
            fed.events.abort();
        }
    }

    /// Takes updates as they come, and does not end. Cancel-safe.
    pub(crate) async fn run(&mut self) -> Infallible {
        while let Some((worker, update)) = self.updates.next().await {
            self.apply(worker, update);
        }
        pending().await
    }

    fn apply(&mut self, worker: WorkerId, update: KvUpdate) {
        // It left while its update was on the way.
        let Some(fed) = self.workers.get_mut(&worker) else {
            return;
        };
        let (rank, events) = match update {
            KvUpdate::Reset { rank, events } => {
                if !fed.ranks.insert(rank) {
                    fed.pool.count_kv_reset();
                }
                fed.pool.forget_blocks(WorkerRank::new(worker, rank));
                (rank, events)
            }
            KvUpdate::Changes { rank, events } => (rank, events),
            KvUpdate::State(_) => return,
        };
        fed.pool.apply(WorkerRank::new(worker, rank), &events);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_engine::remote::{WorkerCard, engine_endpoint};
    use forebay_engine::{Capabilities, EngineInfo};
    use forebay_observability::Registry;
    use forebay_router::RouterConfig;
    use forebay_runtime::{Instance, Planes, Tasks};
    use forebay_tokens::BlockSize;

    use super::*;

    const WORKER: WorkerId = WorkerId(1);

    #[tokio::test]
    async fn a_snapshot_that_is_not_a_rank_s_first_is_a_reset() {
        let model = EngineInfo {
            model: "model".into(),
            capabilities: Capabilities::GENERATE | Capabilities::KV_EVENTS,
            context_length: 64,
            vocabulary_size: 2,
            block_size: BlockSize::new(16).unwrap(),
            kv_blocks: 8,
            eos_token_ids: vec![],
            data_parallel_ranks: 2,
        };
        let instance = Instance {
            endpoint: engine_endpoint("test").unwrap(),
            worker: WORKER,
            address: "nowhere".into(),
            card: WorkerCard::new("model", model.clone()).encode(),
        };
        let tasks = Tasks::new(&Registry::new());
        let engine = RemoteEngine::new(instance, &Planes::in_process(), &tasks);
        let engine = engine.unwrap();
        let pool = WorkerPool::new(model, &RouterConfig::default()).unwrap();
        let mut feeds = KvFeeds::default();
        let reset = |rank| KvUpdate::Reset {
            rank: DpRank(rank),
            events: vec![],
        };
        feeds.add(WORKER, pool.clone(), &engine);
        for (rank, resets) in [(0, 0), (1, 0), (0, 1), (0, 2), (1, 3)] {
            feeds.apply(WORKER, reset(rank));
            assert_eq!(pool.kv_resets(), resets, "rank {rank}");
        }
        // A worker that went and came back is told anew.
        feeds.remove(WORKER);
        feeds.add(WORKER, pool.clone(), &engine);
        feeds.apply(WORKER, reset(0));
        assert_eq!(pool.kv_resets(), 3);
    }
}
