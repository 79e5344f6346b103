use std::pin::Pin;

use forebay_protocols::Error;
use forebay_tokens::{DpRank, KvEvent};
use futures::Stream;

/// Changes of one rank's KV cache that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEventBatch {
    /// Counts the batches of a rank without a gap: from 0 in the engine's life, or, if the engine is
    /// remote, in the life of the stream.
    pub sequence: u64,
    /// Whose cache changed.
    pub rank: DpRank,
    /// What changed, in order.
    pub events: Vec<KvEvent>,
}

/// The KV cache of an engine as a stream: first what it holds at the moment of subscription (one
/// batch a rank, that carries the sequence of the last change it includes; perhaps empty), then
/// each change.
///
/// A consumer that falls too far behind gets one error, `Unavailable` with reason
/// `kv_events_lagged`, and the end: what it has is then incomplete, and it subscribes anew.
pub type KvEventStream = Pin<Box<dyn Stream<Item = Result<KvEventBatch, Error>> + Send>>;
