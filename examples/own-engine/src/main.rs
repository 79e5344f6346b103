//! An engine of one's own behind Forebay's frontend: it says what it is told, louder.
//! `cargo run -p own-engine -- 8001` prints where to ask it.

use std::sync::Arc;

use forebay_chat::{ChatTemplate, Tokenizer};
use forebay_engine::*;
use forebay_frontend::{Frontend, FrontendConfig, ModelRegistry, Process, ServedModel};
use forebay_observability::Registry;
use forebay_protocols::worker::PromptUsage;
use forebay_runtime::{Health, Shutdown, TaskKind, Tasks};
use forebay_tokens::{BlockSize, RequestId};
use futures::future::BoxFuture;
use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

struct Shout(EngineInfo);

impl Engine for Shout {
    fn info(&self) -> &EngineInfo {
        &self.0
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let mut answer = request.prompt_token_ids.clone();
        for token in answer.iter_mut().filter(|token| **token < 256) {
            // Below 256, a token of the byte tokenizer is a byte.
            *token = (*token as u8).to_ascii_uppercase().into();
        }
        let prompt = PromptUsage {
            prompt_tokens: answer.len() as u32,
            cached_tokens: 0,
        };
        let mut finish = FinishReason::Stop;
        answer.extend(&self.0.eos_token_ids[..1]);
        let budget = request.stop.as_ref().and_then(|stop| stop.max_tokens);
        if let Some(budget) = budget.filter(|budget| (*budget as usize) < answer.len()) {
            finish = FinishReason::Length;
            answer.truncate(budget as usize);
        }
        let last = answer.len() - 1;
        let outputs = answer.into_iter().enumerate().map(move |(i, token)| {
            Ok(GenerateOutput {
                token_ids: vec![token],
                prompt: (i == 0).then_some(prompt),
                finish_reason: (if i == last {
                    finish
                } else {
                    FinishReason::Unspecified
                })
                .into(),
                ..GenerateOutput::default()
            })
        });
        let supported = self.0.capabilities.check(&request);
        Box::pin(async move { supported.map(|()| stream::iter(outputs).boxed()) })
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        Load::default()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let tokenizer = Tokenizer::bytes();
    let engine = Arc::new(Shout(EngineInfo {
        model: "shout".to_owned(),
        capabilities: Capabilities::GENERATE,
        context_length: 4096,
        vocabulary_size: tokenizer.vocab_size() as u32,
        block_size: BlockSize::new(16)?,
        kv_blocks: 0,
        eos_token_ids: tokenizer.eos().to_vec(),
        data_parallel_ranks: 1,
    }));
    let template = ChatTemplate::new("{{ messages[-1].content }}")?;
    let model = ServedModel::new("shout", tokenizer, engine).with_template(template);

    let metrics = Registry::new();
    let (tasks, health) = (Tasks::new(&metrics), Health::new());
    let process = Process {
        tasks: tasks.clone(),
        health: health.clone(),
        metrics,
    };
    let config = FrontendConfig {
        port: std::env::args().nth(1).map_or(Ok(8001), |p| p.parse())?,
        ..FrontendConfig::default()
    };
    let frontend = Frontend::bind(&config, ModelRegistry::new([model])?, process).await?;
    eprintln!("http://{}/v1/chat/completions", frontend.local_addr());
    let serve = frontend.run(CancellationToken::new());
    tasks.spawn(TaskKind::Critical, "frontend", serve);
    let report = Shutdown::new(Default::default()).run(&tasks, &health);
    std::process::exit(report.await?.exit_code().into());
}
