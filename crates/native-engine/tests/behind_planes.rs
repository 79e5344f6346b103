//! The engine behind planes keeps the contract: nothing is lost or changed on the way.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use forebay_engine::remote::{RemoteEngine, behind_planes};
use forebay_native_engine::{EngineConfig, Model, ModelShape, NativeEngine, random_gguf};
use forebay_observability::Registry;
use forebay_runtime::Tasks;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let shape = ModelShape {
        vocabulary: 301,
        // So long that no abort of an endless request comes too late.
        context_length: 16_384,
        layers: 2,
        hidden: 64,
        feed_forward: 96,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
    };
    Arc::new(Model::from_gguf(Cursor::new(random_gguf(&shape, 1))).unwrap())
});

async fn engine() -> RemoteEngine {
    let registry = Registry::new();
    let tasks = Tasks::new(&registry);
    let config = EngineConfig::default();
    let engine = NativeEngine::start(&config, MODEL.clone(), &tasks, &registry).unwrap();
    behind_planes(engine, &tasks).await
}

forebay_engine::conformance_tests!(engine().await);
