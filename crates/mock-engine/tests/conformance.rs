//! The contract of every engine: without engine time, with it, and behind planes.
#![allow(clippy::unwrap_used)]

use forebay_mock_engine::{MockEngine, MockerConfig};
use forebay_observability::Registry;
use forebay_runtime::Tasks;
use forebay_tokens::ContentKey;

fn engine(speed: f64) -> MockEngine {
    let config = MockerConfig {
        speed,
        ..MockerConfig::default()
    };
    let tasks = Tasks::new(&Registry::new());
    MockEngine::start("mock", &config, 0, ContentKey::new([7; 32]), &tasks).unwrap()
}

mod without_engine_time {
    use super::*;

    forebay_engine::conformance_tests!(engine(0.0));
}

mod with_engine_time {
    use super::*;

    forebay_engine::conformance_tests!(engine(20.0));
}
