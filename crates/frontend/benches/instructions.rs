//! Hot paths of the server: what a streamed answer and a whole one pay, from socket to socket,
//! client included, on one thread.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_chat::{ChatTemplate, Tokenizer};
use forebay_engine::{
    Capabilities, Engine, EngineInfo, Error, FinishReason, GenerateOutput, GenerateRequest,
    GenerateStream, Load,
};
use forebay_frontend::{Frontend, FrontendConfig, ModelRegistry, Process, ServedModel};
use forebay_observability::Registry;
use forebay_protocols::worker::PromptUsage;
use forebay_runtime::{Health, TaskKind, Tasks};
use forebay_testkit::instructions::{self, measured};
use forebay_tokens::{BlockSize, RequestId};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const TOKENS: u32 = 512;

/// Answers with letters, one a turn of the runtime, as an engine's steps would bring them.
struct Letters {
    info: EngineInfo,
    tasks: Tasks,
}

impl Letters {
    fn new(tasks: Tasks) -> Self {
        let info = EngineInfo {
            model: "letters".into(),
            capabilities: Capabilities::GENERATE,
            context_length: 4096,
            vocabulary_size: 259,
            block_size: BlockSize::new(16).expect("16 is a block size"),
            kv_blocks: 0,
            eos_token_ids: vec![],
            data_parallel_ranks: 1,
        };
        Self { info, tasks }
    }
}

impl Engine for Letters {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let prompt_tokens = request.prompt_token_ids.len() as u32;
        let (steps, outputs) = mpsc::channel(1);
        self.tasks.spawn(TaskKind::Request, "letters", async move {
            for n in 0..TOKENS {
                let output = GenerateOutput {
                    prompt: (n == 0).then_some(PromptUsage {
                        prompt_tokens,
                        cached_tokens: 0,
                    }),
                    token_ids: vec![u32::from(b'a') + n % 26],
                    finish_reason: if n + 1 == TOKENS {
                        FinishReason::Length.into()
                    } else {
                        FinishReason::Unspecified.into()
                    },
                    ..GenerateOutput::default()
                };
                // Nobody wants the rest of an answer that is dropped.
                let _ = steps.send(Ok(output)).await;
                tokio::task::yield_now().await;
            }
        });
        let outputs = stream::unfold(outputs, |mut outputs| async {
            let output = outputs.recv().await?;
            Some((output, outputs))
        });
        Box::pin(async move { Ok(outputs.boxed()) })
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        Load::default()
    }
}

/// A server that runs while `runtime` is driven.
async fn serve() -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let metrics = Registry::new();
    let process = Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    };
    let tasks = process.tasks.clone();
    let engine = Arc::new(Letters::new(tasks.clone()));
    let model = ServedModel::new("letters", Tokenizer::bytes(), engine)
        .with_template(ChatTemplate::chatml());
    let config = FrontendConfig {
        port: 0,
        ..FrontendConfig::default()
    };
    let frontend = Frontend::bind(&config, ModelRegistry::new([model])?, process).await?;
    let address = frontend.local_addr();
    tasks.spawn_cooperative(TaskKind::Critical, "frontend", |cancel| {
        frontend.run(cancel)
    });
    Ok(address)
}

/// Asks, and reads to the end of the answer.
async fn ask(address: SocketAddr, body: &str) -> std::io::Result<String> {
    let mut client = TcpStream::connect(address).await?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: forebay\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn answer(stream: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime: Runtime = runtime.expect("the system has an event queue");
    let address = runtime.block_on(serve()).expect("loopback has a free port");
    let messages = r#"[{"role": "user", "content": "Hi"}]"#;
    let body = format!(
        r#"{{"model": "letters", "messages": {messages}, "max_tokens": {TOKENS}, "stream": {stream}}}"#
    );
    // What is made once is made by the first.
    let first = runtime.block_on(ask(address, &body));
    let second = measured(|| runtime.block_on(ask(address, &body)));
    for answer in [first, second] {
        let answer = answer.expect("the server answers");
        let end = if stream {
            "data: [DONE]"
        } else {
            r#""completion_tokens":512"#
        };
        assert!(answer.contains(end), "{answer}");
    }
}

fn stream_512() {
    answer(true);
}

fn whole_512() {
    answer(false);
}

fn main() {
    instructions::main(&[("stream_512", stream_512), ("whole_512", whole_512)]);
}
