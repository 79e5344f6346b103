use std::fmt;
use std::sync::Arc;

use forebay_perf_model::PerfModel;
use forebay_tokens::{DpRank, WorkerId};

/// What a request is sent to: one data-parallel rank of one worker. Each has a KV cache of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerRank {
    /// The worker.
    pub worker: WorkerId,
    /// The rank within it; 0 where there is one.
    pub rank: DpRank,
}

impl WorkerRank {
    /// A rank of a worker.
    pub const fn new(worker: WorkerId, rank: DpRank) -> Self {
        Self { worker, rank }
    }
}

impl From<WorkerId> for WorkerRank {
    /// The worker's rank 0.
    fn from(worker: WorkerId) -> Self {
        Self::new(worker, DpRank(0))
    }
}

impl fmt::Display for WorkerRank {
    /// `worker/rank`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.worker, self.rank)
    }
}

/// What a router should know about a worker beside its name.
#[derive(Clone, Debug, Default)]
pub struct WorkerSpec {
    /// How long its iterations take. Costs are predicted times if every worker that a request may
    /// go to has a model, and blocks otherwise: see [`Cost`](crate::Cost).
    pub perf_model: Option<Arc<PerfModel>>,
}
