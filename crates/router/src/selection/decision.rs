use std::fmt;

use super::{Cost, Mode};
use crate::{Load, Overlap, WorkerRank};

/// Where a request goes, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The worker and its rank.
    pub at: WorkerRank,
    /// How it was chosen.
    pub mode: Mode,
    /// What it has of the prompt, by what its events told or its running requests imply.
    pub overlap: Overlap,
    /// The prompt tokens that it will have to compute; at least 1. What lower tiers hold counts
    /// in part, by its credit.
    pub prefill_tokens: u64,
    /// Every worker, in the order of their ids, if the request asked for an explanation.
    pub candidates: Vec<Candidate>,
}

/// One worker as a request's possible place.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The worker and its rank.
    pub at: WorkerRank,
    /// Whether the request may go there.
    pub eligibility: Eligibility,
    /// What it has of the prompt.
    pub overlap: Overlap,
    /// What is booked there, without the request.
    pub load: Load,
    /// What the request would cost there, whatever the mode.
    pub cost: Cost,
}

/// Whether a request may go to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Eligibility {
    /// It may.
    Eligible,
    /// The worker takes no new requests.
    Draining,
    /// The request excludes the worker.
    Excluded,
    /// The request names another worker.
    NotTarget,
}

impl fmt::Display for Eligibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eligible => "eligible",
            Self::Draining => "draining",
            Self::Excluded => "excluded by the request",
            Self::NotTarget => "not the one the request names",
        })
    }
}
