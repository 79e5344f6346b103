use std::future::pending;
use std::sync::Arc;

use forebay_runtime::{Instance, Planes, TaskKind, Tasks};
use forebay_tokens::WorkerId;

use super::{EngineHandler, RemoteEngine, WorkerCard, engine_endpoint, kv_topic};
use crate::Engine;

/// An engine as it looks from behind in-process planes, to put it through the suite once more:
/// what its outputs and errors lose on the way shows there. It is served until `tasks` end.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub async fn behind_planes(engine: impl Engine, tasks: &Tasks) -> RemoteEngine {
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let planes = Planes::in_process();
    let endpoint = engine_endpoint("suite").expect("a proper name");
    let worker = WorkerId(1);
    let handler = Arc::new(EngineHandler::new(engine.clone()));
    let served = planes
        .requests
        .serve(&endpoint, worker, handler.clone())
        .await;
    let served = served.expect("the planes are empty");
    let topic = kv_topic(&endpoint, worker);
    let publisher = planes.events.publisher(&topic, worker).await;
    let publisher = publisher.expect("it is in this process");
    let mut publisher = handler.kv_publisher(publisher, tasks);
    let card = WorkerCard::new(engine.info().model.clone(), engine.info().clone());
    let instance = Instance {
        endpoint,
        worker,
        address: served.address().to_owned(),
        card: card.encode(),
    };
    tasks.spawn(TaskKind::Background, "behind_planes", async move {
        let _served = served;
        publisher.run().await;
        // An engine without KV events is served all the same.
        pending::<()>().await;
    });
    RemoteEngine::new(instance, &planes, tasks).expect("the card was just made")
}
