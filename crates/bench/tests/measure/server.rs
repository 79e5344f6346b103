//! A server with the OpenAI API, every answer of which a test decides.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay_observability::Registry;
use forebay_runtime::{TaskKind, Tasks};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// One request, as the server got it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// From 0, in the order of arrival.
    pub(crate) number: usize,
    pub(crate) body: Value,
    pub(crate) prompt: String,
}

impl Asked {
    pub(crate) fn words(&self) -> usize {
        self.prompt.split_whitespace().count()
    }

    pub(crate) fn max_tokens(&self) -> usize {
        self.body["max_tokens"].as_u64().unwrap() as usize
    }
}

/// A part of an answer.
pub(crate) enum Step {
    Wait(Duration),
    /// For ever.
    Stall,
    Send(String),
    /// Breaks the connection.
    Cut,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) steps: Vec<Step>,
}

impl Answer {
    pub(crate) fn status(status: u16, body: Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            steps: vec![Step::Send(body.to_string())],
        }
    }

    /// A stream of these steps.
    pub(crate) fn stream(steps: Vec<Step>) -> Self {
        Self {
            status: 200,
            content_type: "text/event-stream",
            steps,
        }
    }

    /// A complete stream of as many tokens as were asked for, each after `gap`, the first after
    /// `first`.
    pub(crate) fn tokens(asked: &Asked, first: Duration, gap: Duration) -> Self {
        let mut steps = vec![role(), Step::Wait(first)];
        for index in 0..asked.max_tokens() {
            if index > 0 {
                steps.push(Step::Wait(gap));
            }
            steps.push(token());
        }
        steps.extend([finish(), usage(asked, asked.max_tokens()), done()]);
        Self::stream(steps)
    }

    /// The same without any waiting.
    pub(crate) fn at_once(asked: &Asked) -> Self {
        Self::tokens(asked, Duration::ZERO, Duration::ZERO)
    }
}

fn event(data: &Value) -> Step {
    Step::Send(format!("data: {data}\n\n"))
}

pub(crate) fn role() -> Step {
    event(&json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
}

pub(crate) fn token() -> Step {
    event(&json!({"choices": [{"index": 0, "delta": {"content": " baba"}}]}))
}

pub(crate) fn finish() -> Step {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}))
}

/// Two tokens a word and ten around them, five of them cached.
pub(crate) fn usage(asked: &Asked, completion_tokens: usize) -> Step {
    event(&json!({"choices": [], "usage": {
        "prompt_tokens": 2 * asked.words() + 10,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 5},
    }}))
}

pub(crate) fn done() -> Step {
    Step::Send("data: [DONE]\n\n".into())
}

type Behaviour = dyn Fn(&Asked) -> Answer + Send + Sync;

struct State {
    behaviour: Box<Behaviour>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    arrived: tokio::sync::Semaphore,
    stopped: CancellationToken,
}

pub(crate) struct Server {
    state: Arc<State>,
    port: u16,
    pub(crate) tasks: Tasks,
}

impl Server {
    /// Answers each generation as `behaviour` says, the probes' too; lists one model, `first`.
    pub(crate) async fn start(
        behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(State {
            behaviour: Box::new(behaviour),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            arrived: tokio::sync::Semaphore::new(0),
            stopped: CancellationToken::new(),
        });
        let tasks = Tasks::new(&Registry::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn(TaskKind::Background, "accept", {
            let (state, tasks) = (state.clone(), tasks.clone());
            async move {
                while let Some(accepted) =
                    state.stopped.run_until_cancelled(listener.accept()).await
                {
                    let (stream, _) = accepted.unwrap();
                    stream.set_nodelay(true).unwrap();
                    state.connections.fetch_add(1, Ordering::Relaxed);
                    let (state, stopped) = (state.clone(), state.stopped.clone());
                    tasks.spawn(TaskKind::Background, "connection", async move {
                        let service = service_fn(move |request| respond(state.clone(), request));
                        let connection = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service);
                        // A cut is an error here.
                        let _ = stopped.run_until_cancelled(connection).await;
                    });
                }
            }
        });
        Self { state, port, tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Generations so far, probes included.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Most generations at a time.
    pub(crate) fn most_at_a_time(&self) -> usize {
        self.state.most.load(Ordering::Relaxed)
    }

    /// Closes every connection and takes no more.
    pub(crate) fn stop(&self) {
        self.state.stopped.cancel();
    }

    /// Waits until so many more generations have arrived.
    pub(crate) async fn arrived(&self, count: u32) {
        self.state
            .arrived
            .acquire_many(count)
            .await
            .unwrap()
            .forget();
    }
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

async fn respond(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let answer = match &*path {
        "/v1/models" => Answer::status(200, json!({"data": [{"id": "first"}, {"id": "second"}]})),
        "/v1/chat/completions" | "/v1/completions" => state.answer(&body),
        _ => Answer::status(404, json!({"error": {"message": "no such route"}})),
    };
    let counted = Counted(state.clone(), path.ends_with("completions"));
    counted.begin();
    let steps = VecDeque::from(answer.steps);
    let body = futures::stream::unfold((steps, counted), |(mut steps, counted)| async move {
        loop {
            let result = match steps.pop_front()? {
                Step::Wait(time) if time.is_zero() => continue,
                Step::Wait(time) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Step::Stall => std::future::pending().await,
                Step::Send(text) => Ok(Frame::data(Bytes::from(text))),
                Step::Cut => Err(std::io::ErrorKind::BrokenPipe.into()),
            };
            return Some((result, (steps, counted)));
        }
    });
    Ok(Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type)
        .body(StreamBody::new(body.boxed()))
        .unwrap())
}

impl State {
    fn answer(&self, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap();
        let prompt = body["prompt"]
            .as_str()
            .or(body["messages"][0]["content"].as_str());
        let asked = {
            let mut all = self.asked.lock().unwrap();
            let asked = Asked {
                number: all.len(),
                prompt: prompt.unwrap().to_owned(),
                body,
            };
            all.push(asked.clone());
            asked
        };
        self.arrived.add_permits(1);
        (self.behaviour)(&asked)
    }
}

/// A generation under way.
struct Counted(Arc<State>, bool);

impl Counted {
    fn begin(&self) {
        if self.1 {
            let now = self.0.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.0.most.fetch_max(now, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.1 {
            self.0.now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
