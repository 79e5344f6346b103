use std::fmt;
use std::sync::Arc;

use forebay_engine::remote::EngineHandler;
use forebay_runtime::Served;

/// What a [`Worker`](crate::Worker) that has left discovery still serves. Dropping it ends the
/// streams that run, with `Unavailable`.
#[derive(Default)]
#[must_use = "dropping it ends the streams that run"]
pub struct Leaving(Option<(Box<dyn Served>, Arc<EngineHandler>)>);

impl Leaving {
    pub(crate) fn new(served: Box<dyn Served>, handler: Arc<EngineHandler>) -> Self {
        Self(Some((served, handler)))
    }

    /// Refuses new streams and lets those that run go on to their ends. As nothing ends in an engine
    /// that is paused, or is paused meanwhile, the streams of one are ended at once, for whoever
    /// asked to go on elsewhere. Whether all of them ended by themselves.
    pub async fn drain(self) -> bool {
        let Some((served, handler)) = self.0 else {
            return true;
        };
        let mut paused = handler.paused();
        tokio::select! {
            biased;
            _ = paused.wait_for(|paused| *paused) => false,
            () = served.drain() => true,
        }
    }
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaving").finish_non_exhaustive()
    }
}
