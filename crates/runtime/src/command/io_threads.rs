use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// The setting `io_threads`: how many threads serve connections and carry tokens, 1 to 1024; engines
/// compute on their own.
///
/// Not set: half of the cores. A token is carried in a few microseconds, so that to wake one more
/// thread for it costs more than it saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IoThreads(pub Option<NonZeroUsize>);

/// No machine gains by more.
const MOST_THREADS: usize = 1024;

impl IoThreads {
    /// The setting, or its default.
    pub fn get(self) -> NonZeroUsize {
        self.0.unwrap_or_else(|| {
            let cores = available_parallelism().map_or(1, NonZeroUsize::get);
            NonZeroUsize::new(cores.div_ceil(2)).unwrap_or(NonZeroUsize::MIN)
        })
    }

    /// Checks its range.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], if it is out of it.
    pub fn check(self) -> Result<(), ConfigError> {
        match self.0 {
            Some(threads) if threads.get() > MOST_THREADS => Err(ConfigError {
                setting: "io_threads",
                expected: "from 1 to 1024",
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_few_and_never_none() {
        let threads = |count| IoThreads(NonZeroUsize::new(count));
        assert!(IoThreads::default().get() >= NonZeroUsize::MIN);
        assert_eq!(threads(1024).get().get(), 1024);
        assert!(threads(1024).check().is_ok());
        let error = threads(1025).check().unwrap_err().to_string();
        assert_eq!(error, "io_threads must be from 1 to 1024");
    }
}
