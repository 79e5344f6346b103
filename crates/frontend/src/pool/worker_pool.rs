mod choosing;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_engine::remote::{KvRepair, KvState};
use forebay_engine::{Engine, EngineInfo};
use forebay_router::{Load, Mode, PrefixIndex as _, Router, RouterConfig, WorkerRank, WorkerSpec};
use forebay_tokens::{KvEvent, WorkerId};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use choosing::{Place, Placed};

use super::counts::PoolCounts;
use super::repair_counts::RepairCounts;
use crate::Error;
use crate::config::check_router;
use crate::replica::Owner;
use crate::request_id::random_u64;

/// The workers that answer for one model, and the choice among them.
///
/// Workers come and go while requests run: one that is added is chosen from then on, one that is
/// removed or drained is not chosen any more, and what runs there goes on. Cloning copies a
/// pointer.
#[derive(Clone)]
pub struct WorkerPool(Arc<Inner>);

struct Inner {
    model: EngineInfo,
    /// Whether its workers stay what they are.
    is_fixed: bool,
    /// Whether prompts are hashed.
    is_kv: bool,
    /// What a request is expected to generate at most.
    expected_output_tokens: u64,
    state: Mutex<State>,
    /// How many workers take requests; changes with every worker that comes or goes.
    ready: watch::Sender<usize>,
    /// Whose its bookings are.
    owner: Arc<Owner>,
    random: AtomicU64,
    /// Of the workers that take requests, all together: the bits of an f64.
    weight: AtomicU64,
    kv_repairs: RepairCounts,
}

struct State {
    router: Router,
    workers: HashMap<WorkerId, Worker>,
    /// How many workers were added in all.
    added: u64,
}

struct Worker {
    engine: Arc<dyn Engine>,
    incarnation: u64,
    is_draining: bool,
    /// Its part in the weight of the pool.
    weight: f64,
    kv: Option<KvState>,
}

/// A worker of a pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PooledWorker {
    /// Who it is.
    pub worker: WorkerId,
    /// Whether it is not given new requests.
    pub is_draining: bool,
    /// What was sent there and has not ended, as far as is known here: by this pool, and by other
    /// frontends that tell what they send. Workers are chosen by it.
    pub load: Load,
    /// What the worker last reported, of the requests of all its clients; before it has, what its
    /// card says. Workers are not chosen by it: it is late, and of the same requests.
    pub reported: forebay_engine::Load,
    /// How many KV blocks it has, as far as its events told.
    pub known_blocks: usize,
    /// How exact that is; `None`, if its events are not followed.
    pub kv: Option<KvState>,
}

impl WorkerPool {
    /// A pool without workers for a model of these facts. Requests wait for the first worker.
    ///
    /// # Errors
    ///
    /// [`Error::Router`] for a setting that is out of its range.
    pub fn new(model: EngineInfo, config: &RouterConfig) -> Result<Self, Error> {
        Self::owned(model, config, Arc::new(Owner::alone()))
    }

    /// The same for bookings of an owner who tells others of them.
    pub(crate) fn owned(
        model: EngineInfo,
        config: &RouterConfig,
        owner: Arc<Owner>,
    ) -> Result<Self, Error> {
        Self::with_workers(model, config.clone(), false, owner)
    }

    /// A pool of one engine that is always there: if it refuses a request, nobody is waited for.
    pub fn of(engine: Arc<dyn Engine>) -> Self {
        let config = RouterConfig {
            mode: Mode::RoundRobin,
            ..RouterConfig::default()
        };
        let pool = Self::with_workers(
            engine.info().clone(),
            config,
            true,
            Arc::new(Owner::alone()),
        );
        let pool = pool.expect("the defaults are within their ranges");
        pool.insert(WorkerId(0), engine, 1.0);
        pool
    }

    fn with_workers(
        model: EngineInfo,
        config: RouterConfig,
        is_fixed: bool,
        owner: Arc<Owner>,
    ) -> Result<Self, Error> {
        check_router(&config)?;
        Ok(Self(Arc::new(Inner {
            is_fixed,
            is_kv: config.mode == Mode::Kv,
            expected_output_tokens: config.expected_output_tokens,
            state: Mutex::new(State {
                router: Router::new(config, model.block_size)?,
                workers: HashMap::new(),
                added: 0,
            }),
            ready: watch::Sender::new(0),
            owner,
            random: AtomicU64::new(random_u64()),
            weight: AtomicU64::new(0.0_f64.to_bits()),
            kv_repairs: RepairCounts::default(),
            model,
        })))
    }

    /// What its workers have in common.
    pub fn model(&self) -> &EngineInfo {
        &self.0.model
    }

    /// Adds a worker, or takes one that drained back. An engine in place of another one of the same
    /// id has nothing cached.
    ///
    /// # Errors
    ///
    /// [`Error::OtherModel`] if the worker's context length, vocabulary, block size or
    /// end-of-sequence tokens are not those of the pool.
    pub fn add(&self, worker: WorkerId, engine: Arc<dyn Engine>) -> Result<(), Error> {
        self.add_with_weight(worker, engine, 1.0)
    }

    /// The same of a worker with another weight than 1.
    pub(crate) fn add_with_weight(
        &self,
        worker: WorkerId,
        engine: Arc<dyn Engine>,
        weight: f64,
    ) -> Result<(), Error> {
        let (ours, theirs) = (self.model(), engine.info());
        let differs = [
            (
                ours.context_length != theirs.context_length,
                "context length",
            ),
            (ours.vocabulary_size != theirs.vocabulary_size, "vocabulary"),
            (ours.block_size != theirs.block_size, "block size"),
            (
                ours.eos_token_ids != theirs.eos_token_ids,
                "end-of-sequence tokens",
            ),
        ];
        match differs.iter().find(|(differs, _)| *differs) {
            Some((_, what)) => Err(Error::OtherModel { worker, what }),
            None => {
                self.insert(worker, engine, weight);
                Ok(())
            }
        }
    }

    fn insert(&self, worker: WorkerId, engine: Arc<dyn Engine>, weight: f64) {
        // From the first look on a remote engine follows what its worker reports.
        engine.load();
        self.change(|state| {
            state.added += 1;
            let incarnation = state.added;
            match state.workers.entry(worker) {
                Entry::Occupied(known) if Arc::ptr_eq(&known.get().engine, &engine) => {
                    let known = known.into_mut();
                    (known.is_draining, known.weight) = (false, weight);
                }
                entry => {
                    entry.insert_entry(Worker {
                        engine,
                        incarnation,
                        is_draining: false,
                        weight,
                        kv: None,
                    });
                    state.router.forget_blocks(worker.into());
                }
            }
            state
                .router
                .add_worker(worker.into(), WorkerSpec::default());
        });
    }

    /// Gives a worker no new requests; what runs there goes on. Whether there is such a worker.
    pub fn drain(&self, worker: WorkerId) -> bool {
        self.change(|state| match state.workers.get_mut(&worker) {
            Some(found) => {
                found.is_draining = true;
                state.router.drain_worker(worker.into())
            }
            None => false,
        })
    }

    /// Forgets a worker; what runs there goes on. Whether there was such a worker.
    pub fn remove(&self, worker: WorkerId) -> bool {
        self.change(|state| {
            state.router.remove_worker(worker.into());
            state.workers.remove(&worker).is_some()
        })
    }

    /// Gives a worker another weight. Nothing happens if the worker is not known.
    pub(crate) fn set_weight(&self, worker: WorkerId, weight: f64) {
        self.change(|state| {
            if let Some(worker) = state.workers.get_mut(&worker) {
                worker.weight = weight;
            }
        });
    }

    /// Takes what has changed in a worker's KV cache, in order, in one: choices wait meanwhile, so
    /// give much in pieces of some 2,000 blocks. Nothing happens if the worker is not
    /// known, or if the pool does not route by prefixes. Only rank 0 counts: a request cannot name
    /// another one.
    pub fn apply(&self, at: WorkerRank, events: &[KvEvent]) {
        if self.0.is_kv {
            let mut state = self.0.state.lock();
            for event in events {
                state.router.apply(at, event);
            }
        }
    }

    /// Forgets what a worker has in its KV cache: it is about to be told from the beginning.
    pub fn forget_blocks(&self, at: WorkerRank) {
        self.0.state.lock().router.forget_blocks(at);
    }

    /// Its workers now, in the order of their ids.
    pub fn workers(&self) -> Vec<PooledWorker> {
        let state = self.0.state.lock();
        let workers = state.router.workers().filter_map(|(at, load)| {
            let worker = state.workers.get(&at.worker)?;
            let pooled = PooledWorker {
                worker: at.worker,
                is_draining: worker.is_draining,
                load,
                reported: forebay_engine::Load::default(),
                known_blocks: state.router.index().blocks_at(at),
                kv: worker.kv,
            };
            Some((pooled, worker.engine.clone()))
        });
        let workers: Vec<_> = workers.collect();
        drop(state);
        // Engines are others' code, and not asked under the lock.
        let reported = workers.into_iter().map(|(worker, engine)| PooledWorker {
            reported: engine.load(),
            ..worker
        });
        reported.collect()
    }

    /// Whether prompts are routed by their prefixes.
    pub(crate) fn is_kv(&self) -> bool {
        self.0.is_kv
    }

    /// Whether its workers stay what they are: there is nobody to wait for.
    pub(crate) fn is_fixed(&self) -> bool {
        self.0.is_fixed
    }

    /// How many workers take requests now.
    pub(crate) fn ready_workers(&self) -> usize {
        *self.0.ready.borrow()
    }

    /// The weights of the workers that take requests now, all together.
    pub(crate) fn weight(&self) -> f64 {
        f64::from_bits(self.0.weight.load(Ordering::Relaxed))
    }

    /// How many workers take requests, now and with every change.
    pub(crate) fn ready(&self) -> watch::Receiver<usize> {
        self.0.ready.subscribe()
    }

    /// What the prefix index takes in bytes.
    pub(super) fn index_bytes(&self) -> usize {
        self.0.state.lock().router.index().size_bytes()
    }

    /// What was known of a worker's cache was repaired.
    pub(super) fn repaired(&self, by: KvRepair) {
        self.0.kv_repairs.count(by);
    }

    /// What it has counted.
    pub(super) fn counts(&self) -> PoolCounts {
        PoolCounts {
            repairs: self.0.kv_repairs.all(),
            dropped_blocks: self.0.state.lock().router.index().dropped_blocks(),
        }
    }

    /// Tells pools apart: equal for handles on one that lives.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// How exact is what was applied of a worker. Nothing happens if the worker is not known.
    pub(super) fn set_kv_state(&self, worker: WorkerId, kv: KvState) {
        if let Some(worker) = self.0.state.lock().workers.get_mut(&worker) {
            worker.kv = Some(kv);
            if let KvState::Exact { by, .. } = kv {
                self.repaired(by);
            }
        }
    }

    /// Changes the workers, and tells those who wait for one.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.state.lock();
        let result = change(&mut state);
        let ready = state.workers.values().filter(|worker| !worker.is_draining);
        // Told under the lock: the last to tell is the last to have changed.
        let weight: f64 = ready.clone().map(|worker| worker.weight).sum();
        self.0.weight.store(weight.to_bits(), Ordering::Relaxed);
        self.0.ready.send_replace(ready.count());
        result
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("model", self.model())
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}
