use std::sync::Arc;
use std::time::Duration;

use forebay_engine::{Engine, GenerateStream};
use forebay_tokens::RequestId;
use futures::StreamExt as _;
use tokio::time::timeout;

/// How long an engine may take to end what it was asked to: some steps.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is left of an attempt whose choice is complete before its engine knows: its text has reached
/// a stop string.
pub(super) struct Remainder {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) outputs: GenerateStream,
}

impl Remainder {
    /// Asks the engine for the end, and passes over what it still says, so that the generation is
    /// one that finished there too. An engine that takes too long is left, which ends it as well.
    pub(super) async fn end(mut self, request: RequestId, choice: u32) {
        self.engine.stop(&request, choice);
        let rest = async { while let Some(Ok(_)) = self.outputs.next().await {} };
        let _ = timeout(PATIENCE, rest).await;
    }
}
