use std::collections::HashSet;

use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::Publisher;
use futures::StreamExt as _;

use super::frames::encode_batch;
use crate::{Engine, KvEventBatch};

/// The reason of an error that says: what was received is incomplete, subscribe anew.
pub(super) const LAGGED: &str = "kv_events_lagged";

/// Publishes the changes of an engine's KV caches to its [`kv_topic`](super::kv_topic), until the engine ends its
/// events: gives the error it did that with.
///
/// The engine's snapshots are not published, only their sequence, so that followers notice what
/// they miss; they ask for snapshots over the request plane. Cancel-safe in that nothing but
/// events is lost, which followers notice too.
pub async fn publish_kv_events(engine: &dyn Engine, publisher: &mut dyn Publisher) -> Error {
    loop {
        let error = publish_subscription(engine, publisher).await;
        if error.reason != LAGGED {
            return error;
        }
    }
}

async fn publish_subscription(engine: &dyn Engine, publisher: &mut dyn Publisher) -> Error {
    let mut events = match engine.kv_events() {
        Ok(events) => events,
        Err(error) => return error,
    };
    let mut ranks = HashSet::new();
    while let Some(batch) = events.next().await {
        match batch {
            Ok(batch) => {
                let is_snapshot = ranks.insert(batch.rank);
                publisher.publish(encode_batch(match is_snapshot {
                    true => KvEventBatch {
                        events: Vec::new(),
                        ..batch
                    },
                    false => batch,
                }));
            }
            Err(error) => return error,
        }
    }
    let message = "the engine has ended its KV events";
    Error::new(ErrorClass::Unavailable, "kv_events_ended", message)
}
