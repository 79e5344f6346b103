//! The contract of every engine: without engine time, with it, with blocks so small that a whole
//! prompt can be cached, and behind planes.
#![allow(clippy::unwrap_used)]

use forebay_engine::remote::{RemoteEngine, behind_planes};
use forebay_mock_engine::{MockEngine, MockerConfig};
use forebay_observability::Registry;
use forebay_runtime::Tasks;
use forebay_tokens::ContentKey;

fn engine(speed: f64, tasks: &Tasks) -> MockEngine {
    with_blocks(64, speed, tasks)
}

fn with_blocks(block_size_tokens: u32, speed: f64, tasks: &Tasks) -> MockEngine {
    let config = MockerConfig {
        block_size_tokens,
        // The context fits, however small the blocks are.
        kv_blocks: 131_072 / block_size_tokens,
        speed,
        ..MockerConfig::default()
    };
    MockEngine::start("mock", &config, 0, ContentKey::new([7; 32]), tasks).unwrap()
}

fn tasks() -> Tasks {
    Tasks::new(&Registry::new())
}

async fn remote_engine() -> RemoteEngine {
    let tasks = tasks();
    behind_planes(engine(0.0, &tasks), &tasks).await
}

mod without_engine_time {
    use super::*;

    forebay_engine::conformance_tests!(engine(0.0, &tasks()));
}

mod with_engine_time {
    use super::*;

    forebay_engine::conformance_tests!(engine(20.0, &tasks()));
}

mod with_small_blocks {
    use super::*;

    forebay_engine::conformance_tests!(with_blocks(4, 0.0, &tasks()));
}

mod behind_planes_without_engine_time {
    use super::*;

    forebay_engine::conformance_tests!(remote_engine().await);
}
