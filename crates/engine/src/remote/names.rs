//! Where workers are found.

use forebay_runtime::{EndpointId, InvalidName, Topic};
use forebay_tokens::WorkerId;

/// Where the workers of a deployment offer their engines, whatever the model: each instance has a
/// [`WorkerCard`](super::WorkerCard), and its address answers the operations of `WorkerRequest` in
/// `worker.proto`.
///
/// # Errors
///
/// [`InvalidName`], if `namespace` is no proper name.
pub fn engine_endpoint(namespace: &str) -> Result<EndpointId, InvalidName> {
    EndpointId::new(namespace, "worker", "engine")
}

/// Where a worker publishes the changes of its KV caches: each event is one `KvEventBatch` of
/// `worker.proto`.
pub fn kv_topic(endpoint: &EndpointId, worker: WorkerId) -> Topic {
    let topic = endpoint.topic("kv-events", worker);
    topic.expect("a proper name makes a proper topic")
}

/// Where a worker publishes its load and what changes of its card: each event is one `WorkerReport`
/// of `worker.proto`.
pub fn report_topic(endpoint: &EndpointId, worker: WorkerId) -> Topic {
    let topic = endpoint.topic("reports", worker);
    topic.expect("a proper name makes a proper topic")
}
