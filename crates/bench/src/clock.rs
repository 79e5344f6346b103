use std::time::{Duration, Instant};

/// Time from the start of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Duration {
        self.start.elapsed()
    }
}
