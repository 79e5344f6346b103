use std::time::Duration;

/// Who wants to know how far a run is. Called from the tasks that generate the load: whatever it
/// does is in the measurement.
pub trait Progress: Send + Sync {
    /// A part of the run begins.
    fn began(&self, phase: Phase) {
        let _ = phase;
    }

    /// A request ended.
    fn ended(&self, failed: bool) {
        let _ = failed;
    }
}

/// Nobody wants to know.
impl Progress for () {}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The server is asked for its models, and how it counts.
    Probe,
    /// Requests that are not measured.
    WarmUp {
        /// How many.
        requests: u64,
    },
    /// The measurement.
    Measure {
        /// How many requests, if that is what ends it.
        requests: Option<u64>,
        /// For how long requests are sent, if that is what ends it.
        duration: Option<Duration>,
    },
}
