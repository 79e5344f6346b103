//! Whether an engine answers.

use std::time::Duration;

use forebay_engine::{Engine, Error, ErrorClass, FinishReason, GenerateRequest};
use forebay_protocols::worker::{SamplingParams, StopConditions};
use futures::StreamExt as _;
use tokio::time::timeout;

/// Asks for one token.
///
/// # Errors
///
/// Whatever the engine says, or `Deadline`.
pub(crate) async fn canary(
    engine: &dyn Engine,
    request_id: String,
    limit: Duration,
) -> Result<(), Error> {
    let outcome = timeout(limit, generate(engine, request_id)).await;
    outcome.unwrap_or_else(|_| {
        let message = "the engine takes too long to answer";
        Err(Error::new(ErrorClass::Deadline, "canary_deadline", message))
    })
}

async fn generate(engine: &dyn Engine, request_id: String) -> Result<(), Error> {
    let info = engine.info();
    let ordinary = (0..info.vocabulary_size).find(|id| !info.eos_token_ids.contains(id));
    let request = GenerateRequest {
        request_id,
        model: info.model.clone(),
        prompt_token_ids: ordinary.into_iter().collect(),
        sampling: Some(SamplingParams {
            temperature: Some(0.0),
            ..Default::default()
        }),
        stop: Some(StopConditions {
            max_tokens: Some(1),
            ignore_eos: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut outputs = engine.generate(request).await?;
    while let Some(output) = outputs.next().await {
        if output?.finish_reason() != FinishReason::Unspecified {
            return Ok(());
        }
    }
    let message = "the engine ended its answer without a reason";
    Err(Error::new(
        ErrorClass::BackendProtocol,
        "canary_cut",
        message,
    ))
}
