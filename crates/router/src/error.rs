use crate::WorkerRank;
use crate::selection::Eligibility;

/// Why no worker was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The router has no workers at all.
    #[error("there are no workers")]
    NoWorkers,
    /// There are workers, but none the request may go to.
    #[error("none of {workers} workers is eligible: {draining} draining, {excluded} excluded")]
    NoneEligible {
        /// All workers.
        workers: usize,
        /// Those that take no new requests.
        draining: usize,
        /// Those that take new requests, but that the request excludes.
        excluded: usize,
    },
    /// The mode is [`Mode::Direct`](crate::Mode::Direct), and the request names no target.
    #[error("the mode is direct, and the request names no worker")]
    NoTarget,
    /// The worker that the request names is not there.
    #[error("worker {0} is not known")]
    UnknownTarget(WorkerRank),
    /// The worker that the request names may not have it.
    #[error("worker {at} is {eligibility}")]
    TargetNotEligible {
        /// The worker.
        at: WorkerRank,
        /// What keeps it from the request.
        eligibility: Eligibility,
    },
}

/// A setting is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` must be {expected}")]
pub struct ConfigError {
    /// The setting's name.
    pub setting: &'static str,
    /// What it must be.
    pub expected: &'static str,
}
