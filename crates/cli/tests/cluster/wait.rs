//! Waiting for what must happen.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a process to start or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Ten times the 1.5 s in which the slowest of faults is noticed.
const DEADLINE: Duration = Duration::from_secs(15);

/// Waits until something holds, and panics if it does not in time.
#[track_caller]
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(DEADLINE, what, holds);
}

/// Waits until what is as before holds again, after a service's return: ten times the second that
/// it may take.
#[track_caller]
pub(crate) fn until_converged(what: &str, holds: impl FnMut() -> bool) {
    until_within(Duration::from_secs(10), what, holds);
}

#[track_caller]
pub(crate) fn until_within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        // Nothing tells of it: it is looked for.
        thread::sleep(Duration::from_millis(10));
    }
}
