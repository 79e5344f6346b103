//! The real model behind the `Engine` trait.

#![allow(clippy::unwrap_used)]

mod support;

use forebay_engine::{Engine, FinishReason, GenerateRequest};
use forebay_native_engine::{EngineConfig, NativeEngine};
use forebay_observability::Registry;
use forebay_protocols::worker::{GenerateOutput, SamplingParams, StopConditions};
use forebay_runtime::Tasks;
use forebay_tokens::TokenId;
use futures::StreamExt;
use support::*;

/// "What is the capital of France?" in the model's chat template, with its default system
/// message.
const QUESTION: [TokenId; 37] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407,
    19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531,
    198,
];

fn question(engine: &NativeEngine, temperature: f32) -> GenerateRequest {
    GenerateRequest {
        request_id: format!("question-{temperature}"),
        prompt_token_ids: QUESTION.to_vec(),
        sampling: Some(SamplingParams {
            temperature: Some(temperature),
            top_p: Some(0.9),
            seed: 3,
            ..Default::default()
        }),
        stop: Some(StopConditions {
            max_tokens: Some(24),
            eos_token_ids: engine.info().eos_token_ids.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn answer(engine: &NativeEngine, request: GenerateRequest) -> GenerateOutput {
    let mut stream = engine.generate(request).await.unwrap();
    let mut answer = GenerateOutput::default();
    while let Some(output) = stream.next().await {
        let output = output.unwrap();
        answer.prompt = answer.prompt.or(output.prompt);
        answer.token_ids.extend(output.token_ids);
        answer.finish_reason = output.finish_reason;
    }
    answer
}

#[tokio::test]
async fn the_capital_of_france_is_paris_and_the_prefix_is_cached() {
    let registry = Registry::new();
    let model = real_model();
    let config = EngineConfig::default();
    let engine =
        NativeEngine::start(&config, model.clone(), &Tasks::new(&registry), &registry).unwrap();
    let first = answer(&engine, question(&engine, 0.0)).await;
    let vocabulary = &model.metadata().tokenizer.tokens;
    let text: String = first
        .token_ids
        .iter()
        .map(|token| vocabulary[*token as usize].replace('Ġ', " "))
        .collect();
    assert!(
        text.starts_with("The capital of France is Paris."),
        "{text}"
    );
    assert_eq!(first.finish_reason(), FinishReason::Stop);
    assert_eq!(first.prompt.unwrap().cached_tokens, 0);

    // Together, on what is cached.
    let (greedy, drawn) = tokio::join!(
        answer(&engine, question(&engine, 0.0)),
        answer(&engine, question(&engine, 0.7)),
    );
    assert_eq!(greedy.token_ids, first.token_ids);
    assert_eq!(greedy.prompt.unwrap().cached_tokens, 32);
    let alone = answer(&engine, question(&engine, 0.7)).await;
    assert_eq!(drawn.token_ids, alone.token_ids);
    engine.stop().await;
}
