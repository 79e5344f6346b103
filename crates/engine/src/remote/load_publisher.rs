use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_runtime::Publisher;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::frames::encode;
use crate::{Engine, Load};

/// The time between two looks at a busy engine, and so between two reports.
const SHORTEST: Duration = Duration::from_millis(50);
/// The longest time without a report.
const LONGEST: Duration = Duration::from_secs(2);

/// Publishes an engine's load to its [`load_topic`](super::load_topic); made by
/// [`EngineHandler::load_publisher`](super::EngineHandler::load_publisher).
///
/// It looks at the engine every 50 ms while the engine has something to do, and publishes what has
/// changed. An engine that has nothing to do is left alone until a generation begins, but for a
/// report every 2 seconds.
pub struct LoadPublisher {
    engine: Arc<dyn Engine>,
    publisher: Box<dyn Publisher>,
    /// A generation has begun.
    begun: Arc<Notify>,
}

impl LoadPublisher {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        publisher: Box<dyn Publisher>,
        begun: Arc<Notify>,
    ) -> Self {
        Self {
            engine,
            publisher,
            begun,
        }
    }

    /// Publishes for as long as it is polled. Cancel-safe.
    pub async fn run(&mut self) -> Infallible {
        let mut told: Option<(Load, Instant)> = None;
        loop {
            let load = self.engine.load();
            if told.is_none_or(|(known, at)| known != load || at.elapsed() >= LONGEST) {
                self.publisher.publish(encode(&load));
                told = Some((load, Instant::now()));
            }
            sleep(SHORTEST).await;
            if is_idle(&load) {
                // Either way there is something to say, or nothing has changed.
                let _ = timeout(LONGEST - SHORTEST, self.begun.notified()).await;
            }
        }
    }
}

/// Whether nothing changes before a generation begins.
fn is_idle(load: &Load) -> bool {
    load.running_requests == 0 && load.waiting_requests == 0 && load.prefill_tokens_pending == 0
}

impl fmt::Debug for LoadPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadPublisher")
            .field("engine", self.engine.info())
            .finish_non_exhaustive()
    }
}
