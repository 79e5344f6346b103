use std::num::NonZeroU32;
use std::sync::Arc;

use forebay_protocols::Error;

use super::waiting::WaitingPlace;
use crate::WorkerPool;
use crate::models::ServedModel;
use crate::record::Record;

/// What a request takes along from one version of its model to the next.
pub(crate) struct Carried {
    pub(crate) record: Record,
    /// If it has waited and no worker has accepted it since: its time goes on.
    pub(crate) place: Option<Arc<WaitingPlace>>,
    /// How many attempts a choice has.
    pub(crate) attempts: NonZeroU32,
    /// Of the versions it has been given to. It does not go back, so that it moves at most as many
    /// times as there are versions.
    pub(crate) tried: Vec<WorkerPool>,
}

/// Why a request was not started.
pub(crate) enum Unstarted {
    Failed(Error),
    /// Its version has no worker for it, and this one has.
    Over(Arc<ServedModel>, Box<Carried>),
}
