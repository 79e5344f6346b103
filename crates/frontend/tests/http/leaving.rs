//! Clients that leave at any point, and clients that take nothing: what they had is freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_engine::{
    Capabilities, Engine, EngineInfo, Error, FinishReason, GenerateRequest, GenerateStream, Load,
};
use forebay_frontend::FrontendConfig;
use forebay_tokens::{BlockSize, RequestId};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::client::{open_post, post};
use crate::engine::{ScriptedEngine, Turn, opening, output};
use crate::server::{Server, until};

/// How a client leaves.
#[derive(Clone, Copy)]
enum Leave {
    /// Its side ends, as at the end of a program.
    Close,
    /// The connection is cut, as by a crash.
    Reset,
}

fn leave(stream: TcpStream, how: Leave) {
    if let Leave::Reset = how {
        stream.set_zero_linger().unwrap();
    }
    drop(stream);
}

fn nothing_is_left(server: &Server) -> bool {
    server.connections() == 0
        && [
            "forebay_frontend_connections 0",
            "forebay_frontend_body_bytes 0",
            "forebay_frontend_requests_in_flight{endpoint=\"completions\"} 0",
        ]
        .iter()
        .all(|line| server.has_metric(line))
}

#[tokio::test]
async fn a_client_may_leave_at_any_byte() {
    let engine = ScriptedEngine::saying("a few words");
    let server = Server::start(engine.clone()).await;
    for streamed in [false, true] {
        let body = json!({"model": "base", "prompt": "x", "stream": streamed}).to_string();
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut whole = Vec::new();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_end(&mut whole).await.unwrap();

        // Somewhere in the request, the end included.
        for (sent, how) in (0..=request.len()).zip([Leave::Close, Leave::Reset].iter().cycle()) {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(&request.as_bytes()[..sent]).await.unwrap();
            leave(stream, *how);
        }
        // Somewhere in the answer.
        let received = (0..whole.len()).step_by(13);
        for (received, how) in received.zip([Leave::Close, Leave::Reset].iter().cycle()) {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_exact(&mut vec![0; received]).await.unwrap();
            leave(stream, *how);
        }
    }
    engine.until_live(0).await;
    until(|| nothing_is_left(&server)).await;
}

#[tokio::test]
async fn wherever_a_request_ends_its_stage_ends() {
    let engine = ScriptedEngine::new(|request| match request.prompt_token_ids.len() {
        1 => Err(Error::invalid("prompt_token_ids", "is not good")),
        _ => Ok(vec![Turn::Wait(Arc::new(Semaphore::new(0)))]),
    });
    let server = Server::start(engine.clone()).await;
    let path = "/v1/completions";
    let stages = |counts: [usize; 5]| {
        let names = ["read", "prepare", "route", "first_token", "rest"];
        names.iter().zip(counts).all(|(stage, count)| {
            let name = "forebay_frontend_stage_duration_seconds_count";
            server.has_metric(&format!("{name}{{stage=\"{stage}\"}} {count}"))
        })
    };
    assert!(stages([0; 5]));
    let body = json!({"model": "base", "prompt": "x", "n": 0});
    assert_eq!(post(server.address, path, &body).await.status, 400);
    assert!(stages([1, 1, 0, 0, 0]), "it is refused before it is routed");

    let body = json!({"model": "base", "prompt": "x"});
    assert_eq!(post(server.address, path, &body).await.status, 400);
    assert!(stages([2, 2, 1, 0, 0]), "no worker takes it");

    let body = json!({"model": "base", "prompt": "xx"});
    let waiting = open_post(server.address, path, &body).await;
    engine.until_live(1).await;
    until(|| stages([3, 3, 2, 0, 0])).await;
    drop(waiting);
    until(|| stages([3, 3, 2, 1, 0])).await;
}

/// An engine that says `x` for ever, as fast as it is asked.
struct Babbler {
    info: EngineInfo,
    /// Tokens that were taken.
    taken: Arc<AtomicUsize>,
    live: watch::Sender<usize>,
}

/// Tokens in one output.
const BABBLE: usize = 1000;

impl Babbler {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            info: EngineInfo {
                model: "babbler".into(),
                capabilities: Capabilities::GENERATE,
                context_length: 1 << 30,
                vocabulary_size: 259,
                block_size: BlockSize::new(16).unwrap(),
                kv_blocks: 1 << 26,
                eos_token_ids: vec![258],
                data_parallel_ranks: 1,
            },
            taken: Arc::default(),
            live: watch::Sender::new(0),
        })
    }
}

struct Alive(watch::Sender<usize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|live| *live -= 1);
    }
}

impl Engine for Babbler {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        self.live.send_modify(|live| *live += 1);
        let alive = Alive(self.live.clone());
        let taken = self.taken.clone();
        let budget = request.stop.as_ref().unwrap().max_tokens.unwrap() as usize;
        let outputs = (0..budget / BABBLE).map(move |index| {
            let _ = &alive;
            taken.fetch_add(BABBLE, Ordering::Relaxed);
            let mut output = output(&request, &[u32::from(b'x'); BABBLE]);
            if index == 0 {
                output.prompt = opening(&request, 0).prompt;
            }
            if index + 1 == budget / BABBLE {
                output.finish_reason = FinishReason::Length.into();
            }
            Ok(output)
        });
        Box::pin(async move { Ok(stream::iter(outputs).boxed()) })
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        Load::default()
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_little_and_not_for_long() {
    let engine = Babbler::new();
    let config = FrontendConfig {
        write_timeout_seconds: 0.3,
        ..FrontendConfig::default()
    };
    let server = Server::with_config(engine.clone(), config).await;
    const ALL: usize = 200_000_000;
    let body = json!({"model": "base", "prompt": "x", "stream": true, "max_tokens": ALL});
    let stream = open_post(server.address, "/v1/completions", &body).await;
    let mut live = engine.live.subscribe();
    live.wait_for(|live| *live == 1).await.unwrap();
    live.wait_for(|live| *live == 0).await.unwrap();
    // What the system's buffers hold, and a few events: a byte of text is a token.
    let taken = engine.taken.load(Ordering::Relaxed);
    assert!(taken < 40_000_000, "{taken} of {ALL}");
    until(|| nothing_is_left(&server)).await;
    let ended = "forebay_frontend_connections_ended_total{end=\"write_timeout\"} 1";
    assert!(server.has_metric(ended));
    drop(stream);
}
