use std::pin::Pin;

use forebay_protocols::Error;
use forebay_protocols::worker::{
    Control, EmbedOutput, EmbedRequest, EncodeOutput, EncodeRequest, GenerateOutput,
    GenerateRequest, Load, MediaOutput, MediaRequest, ScoreOutput, ScoreRequest,
};
use forebay_tokens::RequestId;
use futures::Stream;
use futures::future::BoxFuture;

use crate::{EngineInfo, KvEventStream};

/// The tokens of one choice as they come.
///
/// It ends after the output that has a finish reason, or after an error. **Dropping it aborts the
/// generation** and frees what it holds.
pub type GenerateStream = Pin<Box<dyn Stream<Item = Result<GenerateOutput, Error>> + Send>>;

/// An LLM engine: token ids in, token ids out.
///
/// One trait for the engine in this process and for those behind a wire. Every operation but
/// [`generate`](Self::generate) has a default that refuses it by name; an engine overrides what its
/// [`Capabilities`](crate::Capabilities) announce, and the conformance suite (feature
/// `conformance`) holds it to that.
pub trait Engine: Send + Sync + 'static {
    /// What is fixed about the engine.
    fn info(&self) -> &EngineInfo;

    /// Generates one choice.
    ///
    /// The stream's first output carries [`PromptUsage`](forebay_protocols::worker::PromptUsage).
    /// Outputs hold at least one token, but for the first and the last.
    ///
    /// # Errors
    ///
    /// Before the stream, if the request cannot be accepted: `InvalidRequest` with the field in
    /// `param` (reason `context_length_exceeded` if the prompt leaves no room for a token),
    /// `Unsupported` for what the capabilities lack, `TooLarge` if it can never fit the KV cache,
    /// `CapacityExhausted` if the queue is full, `Conflict` if a stream of this request id and
    /// choice is running. In the stream, whatever ended it early.
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>>;

    /// Ends the streams of a request, of all its choices, with
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled). Nothing happens if there are
    /// none.
    fn abort(&self, request: &RequestId);

    /// Ends one choice of a request soon, with what it has: its stream goes on to a last output with
    /// [`FinishReason::Enough`](crate::FinishReason::Enough), or ends as it would have if that comes
    /// first. For who has all that it needs before the engine can know, such as at a stop string.
    /// Nothing happens if there is no such stream, or without
    /// [`Capabilities::STOP`](crate::Capabilities::STOP).
    fn stop(&self, request: &RequestId, choice: u32) {
        let _ = (request, choice);
    }

    /// What the engine is doing now. Cheap: routers ask for it often. While no output comes, who
    /// watches over the engine takes `prefill_tokens_pending` that fall and `kv_blocks_active` that
    /// rise for signs of work.
    fn load(&self) -> Load;

    /// Subscribes to what the KV cache holds.
    ///
    /// # Errors
    ///
    /// `Unsupported` without [`Capabilities::KV_EVENTS`](crate::Capabilities::KV_EVENTS).
    fn kv_events(&self) -> Result<KvEventStream, Error> {
        Err(refusal("kv_events"))
    }

    /// Changes the engine's state.
    ///
    /// # Errors
    ///
    /// `Unsupported` if it has no such control.
    fn control(&self, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { Err(refusal(control.as_str_name())) })
    }

    /// Embeds token sequences.
    ///
    /// # Errors
    ///
    /// `Unsupported` without [`Capabilities::EMBED`](crate::Capabilities::EMBED).
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedOutput, Error>> {
        drop(request);
        Box::pin(async { Err(refusal("embed")) })
    }

    /// Scores documents against a query.
    ///
    /// # Errors
    ///
    /// `Unsupported` without [`Capabilities::SCORE`](crate::Capabilities::SCORE).
    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<ScoreOutput, Error>> {
        drop(request);
        Box::pin(async { Err(refusal("score")) })
    }

    /// Runs a multimodal encoder.
    ///
    /// # Errors
    ///
    /// `Unsupported` without [`Capabilities::ENCODE`](crate::Capabilities::ENCODE).
    fn encode(&self, request: EncodeRequest) -> BoxFuture<'_, Result<EncodeOutput, Error>> {
        drop(request);
        Box::pin(async { Err(refusal("encode")) })
    }

    /// Makes an image, a clip or speech.
    ///
    /// # Errors
    ///
    /// `Unsupported` without [`Capabilities::MEDIA`](crate::Capabilities::MEDIA).
    fn media(&self, request: MediaRequest) -> BoxFuture<'_, Result<MediaOutput, Error>> {
        drop(request);
        Box::pin(async { Err(refusal("media")) })
    }
}

fn refusal(operation: &str) -> Error {
    Error::new(
        forebay_protocols::ErrorClass::Unsupported,
        "unsupported_operation",
        format!("this engine does not support {operation}"),
    )
}
