//! Waiting for what must happen.

use std::thread;
use std::time::{Duration, Instant};

/// Ten times what anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds, and panics if it does not in time.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        // Nothing tells of it: it is looked for.
        thread::sleep(Duration::from_millis(10));
    }
}
