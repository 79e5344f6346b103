//! Choices that are complete before their engine knows.

use std::sync::Arc;

use forebay_engine::{
    Capabilities, Engine, EngineInfo, Error, FinishReason, GenerateOutput, GenerateRequest,
    GenerateStream, Load,
};
use forebay_tokens::RequestId;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::client::post;
use crate::engine::{engine_info, opening, output};
use crate::server::Server;

/// An engine that says `one;` and then nothing, until it is asked for the end.
struct Patient {
    info: EngineInfo,
    obeys: bool,
    stop: Arc<Notify>,
    stopped: watch::Sender<Vec<(String, u32)>>,
    /// Streams that were read to their end, and those that were dropped before.
    ends: Arc<watch::Sender<(usize, usize)>>,
}

impl Patient {
    fn new(capabilities: Capabilities, obeys: bool) -> Arc<Self> {
        Arc::new(Self {
            info: engine_info(capabilities),
            obeys,
            stop: Arc::default(),
            stopped: watch::Sender::default(),
            ends: Arc::default(),
        })
    }
}

/// Tells how its stream ended.
struct Stream {
    is_read: bool,
    ends: Arc<watch::Sender<(usize, usize)>>,
}

impl Stream {
    fn ends_by_itself(&mut self) {
        self.is_read = true;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ends.send_modify(|(read, dropped)| match self.is_read {
            true => *read += 1,
            false => *dropped += 1,
        });
    }
}

impl Engine for Patient {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let tokens: Vec<u32> = b"one;".iter().copied().map(u32::from).collect();
        let mut said = output(&request, &tokens);
        said.prompt = opening(&request, 0).prompt;
        let stop = self.stop.clone();
        let mut stream = Stream {
            is_read: false,
            ends: self.ends.clone(),
        };
        let rest = async move {
            stop.notified().await;
            stream.ends_by_itself();
            Ok(GenerateOutput {
                finish_reason: FinishReason::Enough.into(),
                ..GenerateOutput::default()
            })
        };
        let outputs = stream::iter([Ok(said)]).chain(rest.into_stream());
        std::future::ready(Ok(outputs.boxed())).boxed()
    }

    fn abort(&self, _: &RequestId) {}

    fn stop(&self, request: &RequestId, choice: u32) {
        let stop = (request.as_str().to_owned(), choice);
        self.stopped.send_modify(|stopped| stopped.push(stop));
        if self.obeys {
            self.stop.notify_one();
        }
    }

    fn load(&self) -> Load {
        Load::default()
    }
}

/// Asks for what a stop string completes; then how many streams were stopped, read and dropped.
async fn ask(engine: &Arc<Patient>) -> (usize, usize, usize) {
    let server = Server::start(engine.clone()).await;
    let body = json!({"model": "base", "prompt": "x", "stop": ";"});
    let answer = post(server.address, "/v1/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["text"], "one");
    let mut ends = engine.ends.subscribe();
    let ends = *ends.wait_for(|ends| *ends != (0, 0)).await.unwrap();
    let stopped = engine.stopped.borrow();
    assert!(stopped.iter().all(|(_, choice)| *choice == 0));
    (stopped.len(), ends.0, ends.1)
}

const STOPS: Capabilities = Capabilities::GENERATE.union(Capabilities::STOP);

#[tokio::test]
async fn an_engine_is_asked_for_the_end_of_a_choice_that_is_complete() {
    assert_eq!(ask(&Patient::new(STOPS, true)).await, (1, 1, 0));
}

#[tokio::test]
async fn one_that_passes_over_it_is_left() {
    assert_eq!(ask(&Patient::new(STOPS, false)).await, (1, 0, 1));
}

#[tokio::test]
async fn one_that_knows_no_stop_is_left_at_once() {
    let engine = Patient::new(Capabilities::GENERATE, false);
    assert_eq!(ask(&engine).await, (0, 0, 1));
}
