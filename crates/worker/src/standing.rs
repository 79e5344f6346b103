use std::fmt;
use std::sync::Arc;

use forebay_engine::remote::EngineHandler;
use forebay_engine::{Error, ErrorClass};

/// How others find a worker, while they can.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) handler: Arc<EngineHandler>,
    pub(crate) address: String,
    /// False while discovery does not take it.
    pub(crate) is_registered: bool,
}

/// What is told of an engine that does not answer.
pub(crate) fn engine_lost() -> Error {
    let message = "the engine does not answer";
    Error::new(ErrorClass::Unavailable, "engine_lost", message)
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing")
            .field("address", &self.address)
            .field("is_registered", &self.is_registered)
            .finish_non_exhaustive()
    }
}
