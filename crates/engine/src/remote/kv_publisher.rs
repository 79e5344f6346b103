use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::Publisher;
use futures::StreamExt as _;

use super::frames::{encode, write_batch};
use crate::{Engine, KvEventBatch};

/// The reason of an error that says: what was received is incomplete, subscribe anew.
pub(super) const LAGGED: &str = "kv_events_lagged";

/// Publishes the changes of an engine's KV caches to its [`kv_topic`](super::kv_topic); made by
/// [`EngineHandler::kv_publisher`](super::EngineHandler::kv_publisher).
///
/// The engine's snapshots are not published, only their sequence, so that followers notice what
/// they miss; they ask for snapshots over the request plane.
pub struct KvPublisher {
    engine: Arc<dyn Engine>,
    publisher: Box<dyn Publisher>,
}

impl KvPublisher {
    pub(super) fn new(engine: Arc<dyn Engine>, publisher: Box<dyn Publisher>) -> Self {
        Self { engine, publisher }
    }

    /// Publishes until the engine ends its events, and gives the error it did that with. Who goes
    /// on after it makes a new publisher, as the engine may count anew.
    ///
    /// Dropping the future loses events, which followers notice.
    pub async fn run(&mut self) -> Error {
        loop {
            let error = self.run_once().await;
            if error.reason != LAGGED {
                return error;
            }
        }
    }

    /// Publishes one subscription.
    async fn run_once(&mut self) -> Error {
        let mut events = match self.engine.kv_events() {
            Ok(events) => events,
            Err(error) => return error,
        };
        let mut ranks = HashSet::new();
        while let Some(batch) = events.next().await {
            let mut batch: KvEventBatch = match batch {
                Ok(batch) => batch,
                Err(error) => return error,
            };
            let is_snapshot = ranks.insert(batch.rank);
            if is_snapshot {
                batch.events.clear();
            }
            self.publisher.publish(encode(&write_batch(batch)));
        }
        let message = "the engine has ended its KV events";
        Error::new(ErrorClass::Unavailable, "kv_events_ended", message)
    }
}

impl fmt::Debug for KvPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPublisher")
            .field("engine", self.engine.info())
            .field("epoch", &self.publisher.epoch())
            .finish_non_exhaustive()
    }
}
