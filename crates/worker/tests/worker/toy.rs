//! An engine whose health, progress and KV events a test decides.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_engine::{
    Capabilities, Control, Engine, EngineInfo, Error, ErrorClass, FinishReason, GenerateOutput,
    GenerateRequest, GenerateStream, KvEventBatch, KvEventStream, Load,
};
use forebay_protocols::worker::PromptUsage;
use forebay_tokens::{BlockSize, CacheGroup, DpRank, KvEvent, RequestId, RoutingHash, Tier};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

/// For what must happen.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    let output = tokio::time::timeout(Duration::from_secs(60), future).await;
    output.expect("what had to happen did not")
}

/// Says token 7 until it has said enough, and holds block hashes. Clones are one engine.
#[derive(Clone)]
pub(crate) struct Toy {
    info: EngineInfo,
    state: Arc<Mutex<State>>,
    alive: Arc<watch::Sender<bool>>,
    moving: Arc<watch::Sender<bool>>,
    /// What its load says of prefill.
    pub(crate) prefill_tokens: Arc<AtomicU64>,
    pub(crate) running: Arc<watch::Sender<usize>>,
}

struct State {
    sequence: u64,
    held: Vec<RoutingHash>,
    changes: broadcast::Sender<KvEventBatch>,
}

impl State {
    fn new() -> Self {
        Self {
            sequence: 0,
            held: Vec::new(),
            changes: broadcast::Sender::new(4),
        }
    }

    fn batch(&self, events: Vec<KvEvent>) -> KvEventBatch {
        KvEventBatch {
            sequence: self.sequence,
            rank: DpRank(0),
            events,
        }
    }
}

pub(crate) fn stored(hash: u64) -> KvEvent {
    KvEvent::Stored {
        tier: Tier::G1,
        group: CacheGroup(0),
        parent: None,
        blocks: vec![RoutingHash(hash)],
    }
}

impl Toy {
    pub(crate) fn new() -> Self {
        Self {
            info: EngineInfo {
                model: "toy".into(),
                capabilities: Capabilities::GENERATE | Capabilities::KV_EVENTS,
                context_length: 4096,
                vocabulary_size: 256,
                block_size: BlockSize::new(16).unwrap(),
                kv_blocks: 100,
                // The canary's token is an ordinary one.
                eos_token_ids: vec![0],
                data_parallel_ranks: 1,
            },
            state: Arc::new(Mutex::new(State::new())),
            alive: Arc::new(watch::Sender::new(true)),
            moving: Arc::new(watch::Sender::new(true)),
            prefill_tokens: Arc::default(),
            running: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The cache takes a block in.
    pub(crate) fn store(&self, hash: u64) {
        let mut state = self.state.lock();
        state.sequence += 1;
        state.held.push(RoutingHash(hash));
        let batch = state.batch(vec![stored(hash)]);
        let _ = state.changes.send(batch);
    }

    /// Every stream ends with `Unavailable`, as does what comes after.
    pub(crate) fn die(&self) {
        self.alive.send_replace(false);
        *self.state.lock() = State::new();
    }

    /// An empty engine again.
    pub(crate) fn revive(&self) {
        self.alive.send_replace(true);
    }

    /// Accepts requests, and says nothing.
    pub(crate) fn stall(&self) {
        self.moving.send_replace(false);
    }

    /// Says what there is to say.
    pub(crate) fn go_on(&self) {
        self.moving.send_replace(true);
    }

    /// Whether it says what there is to say.
    pub(crate) fn is_moving(&self) -> bool {
        *self.moving.borrow()
    }

    fn check(&self) -> Result<(), Error> {
        match *self.alive.borrow() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorClass::Unavailable,
                "engine_stopped",
                "stopped",
            )),
        }
    }

    /// Fails when the engine dies.
    async fn death(&self) -> Error {
        let mut alive = self.alive.subscribe();
        let dead = alive.wait_for(|alive| !alive).await;
        drop(dead.expect("the engine holds the sender"));
        self.check().expect_err("it is dead")
    }
}

struct Running {
    outputs: GenerateStream,
    toy: Toy,
}

impl Stream for Running {
    type Item = Result<GenerateOutput, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outputs.poll_next_unpin(context)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.toy.running.send_modify(|running| *running -= 1);
    }
}

impl Engine for Toy {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        async move {
            self.check()?;
            assert!(!request.prompt_token_ids.contains(&0));
            let budget = request.stop.and_then(|stop| stop.max_tokens);
            let budget = budget.unwrap_or(u32::MAX);
            let output = move |number: u32| GenerateOutput {
                token_ids: vec![7],
                prompt: (number == 1).then(PromptUsage::default),
                finish_reason: match number == budget {
                    true => FinishReason::Length.into(),
                    false => FinishReason::Unspecified.into(),
                },
                ..Default::default()
            };
            let moving = self.moving.subscribe();
            let outputs = stream::iter(1..=budget).then(move |number| {
                let mut moving = moving.clone();
                async move {
                    tokio::task::yield_now().await;
                    let _ = moving.wait_for(|moving| *moving).await;
                    Ok(output(number))
                }
            });
            let toy = self.clone();
            let death = async move { Err(toy.death().await) }.into_stream();
            self.running.send_modify(|running| *running += 1);
            let mut has_ended = false;
            let outputs = stream::select(outputs, death).take_while(move |output| {
                let goes_on = !has_ended;
                has_ended = output.as_ref().map_or(true, |output| {
                    output.finish_reason() != FinishReason::Unspecified
                });
                async move { goes_on }
            });
            Ok(Running {
                outputs: outputs.boxed(),
                toy: self.clone(),
            }
            .boxed())
        }
        .boxed()
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        Load {
            running_requests: u32::try_from(*self.running.borrow()).unwrap(),
            kv_blocks_total: 100,
            prefill_tokens_pending: self.prefill_tokens.load(Ordering::Relaxed),
            ..Default::default()
        }
    }

    fn control(&self, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        match control {
            Control::Pause => self.stall(),
            Control::Resume => self.go_on(),
            Control::Unspecified | Control::ClearKvCache => {}
        }
        async { Ok(()) }.boxed()
    }

    fn kv_events(&self) -> Result<KvEventStream, Error> {
        self.check()?;
        let state = self.state.lock();
        let snapshot = state.batch(state.held.iter().map(|hash| stored(hash.0)).collect());
        let changes = stream::unfold(Some(state.changes.subscribe()), |changes| async {
            let mut changes = changes?;
            match changes.recv().await {
                Ok(batch) => Some((Ok(batch), Some(changes))),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let error = Error::new(ErrorClass::Unavailable, "kv_events_lagged", "late");
                    Some((Err(error), None))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(stream::iter([Ok(snapshot)]).chain(changes).boxed())
    }
}
