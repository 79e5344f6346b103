//! The suite passes a proper engine and catches improper ones: each planted bug fails the check
//! that is there for it.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use forebay_engine::{
    Capabilities, Engine, EngineInfo, Error, ErrorClass, FinishReason, GenerateOutput,
    GenerateRequest, GenerateStream, Load, conformance, conformance_tests,
};
use forebay_protocols::worker::PromptUsage;
use forebay_tokens::{BlockSize, RequestId, RoutingSeed, TokenId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

/// What is wrong with a [`Toy`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    AbortsOnlyTheFirstChoice,
    AbortsWithoutAReason,
    StopsEveryChoice,
    StopsInSilence,
    AcceptsAnyLength,
    AcceptsNamesTwice,
    AcceptsUnknownTokens,
    CountsOnlyNewTokens,
    EndsWithoutAReason,
    ForgetsTheUsage,
    GoesOnAfterTheEnd,
    IgnoresEndOfSequence,
    IgnoresTheChoice,
    IgnoresTheMinimum,
    IgnoresTheSeed,
    KeepsDroppedStreams,
    NamesNoStopToken,
    SendsEmptyOutputs,
}

type Running = Arc<Mutex<HashMap<(String, u32), Arc<Wishes>>>>;

/// How a choice is to end early.
#[derive(Default)]
struct Wishes {
    aborted: AtomicBool,
    stopped: AtomicBool,
}

/// An engine whose tokens are a hash of the prompt and the position.
struct Toy {
    info: EngineInfo,
    running: Running,
    bug: Bug,
}

impl Toy {
    fn new(bug: Bug) -> Self {
        Self {
            info: EngineInfo {
                model: "toy".into(),
                capabilities: Capabilities::GENERATE | Capabilities::EXACT | Capabilities::STOP,
                context_length: 512,
                vocabulary_size: 1000,
                block_size: BlockSize::new(16).unwrap(),
                kv_blocks: 0,
                eos_token_ids: vec![0],
                data_parallel_ranks: 1,
            },
            running: Running::default(),
            bug,
        }
    }

    fn check(&self, request: &GenerateRequest) -> Result<(), Error> {
        let prompt = &request.prompt_token_ids;
        let stop = request.stop.clone().unwrap_or_default();
        let sampling = request.sampling.clone().unwrap_or_default();
        RequestId::new(&request.request_id).map_err(|e| Error::invalid("request_id", e))?;
        if prompt.is_empty() {
            return Err(Error::invalid("prompt_token_ids", "is empty"));
        }
        if self.bug != Bug::AcceptsUnknownTokens && prompt.iter().any(|id| *id >= 1000) {
            return Err(Error::invalid("prompt_token_ids", "is out of vocabulary"));
        }
        if self.bug != Bug::AcceptsAnyLength && prompt.len() >= 512 {
            let class = ErrorClass::InvalidRequest;
            return Err(Error::new(class, "context_length_exceeded", "too long"));
        }
        if stop.max_tokens == Some(0) {
            return Err(Error::invalid("stop.max_tokens", "is 0"));
        }
        if sampling.temperature.is_some_and(f32::is_nan) {
            return Err(Error::invalid("sampling.temperature", "is not a number"));
        }
        self.info.capabilities.check(request)
    }
}

/// The token at a position; the `retry`-th try, where one is not allowed.
fn token(request: &GenerateRequest, bug: Bug, position: usize, retry: u32) -> TokenId {
    let sampling = request.sampling.clone().unwrap_or_default();
    let mut input = request.prompt_token_ids.clone();
    input.extend([u32::try_from(position).unwrap(), retry]);
    if sampling.temperature != Some(0.0) {
        if bug != Bug::IgnoresTheSeed {
            input.push(u32::try_from(sampling.seed).unwrap());
        }
        if bug != Bug::IgnoresTheChoice {
            input.push(request.choice_index + 1_000_000);
        }
    }
    let hash = RoutingSeed::default().block_hash(&input, &[]).0;
    u32::try_from(hash % 999).unwrap() + 1
}

/// Takes its stream out of the running ones, however that ends.
struct Registration(Running, (String, u32), Bug);

impl Drop for Registration {
    fn drop(&mut self) {
        if self.2 != Bug::KeepsDroppedStreams {
            self.0.lock().unwrap().remove(&self.1);
        }
    }
}

impl Engine for Toy {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let bug = self.bug;
        async move {
            self.check(&request)?;
            let key = (request.request_id.clone(), request.choice_index);
            let wishes = Arc::new(Wishes::default());
            let mut running = self.running.lock().unwrap();
            if bug != Bug::AcceptsNamesTwice && running.contains_key(&key) {
                return Err(Error::new(ErrorClass::Conflict, "running", "is running"));
            }
            running.insert(key.clone(), wishes.clone());
            drop(running);
            let registration = Registration(self.running.clone(), key, bug);

            let start = request.emitted_token_ids.len();
            let output = move |step: usize| {
                let _keep = &registration;
                let stop = request.stop.clone().unwrap_or_default();
                let budget = stop.max_tokens.unwrap() as usize;
                let position = start + step;
                let ends = |id: TokenId| {
                    let eos = stop.eos_token_ids.contains(&id)
                        && !stop.ignore_eos
                        && bug != Bug::IgnoresEndOfSequence;
                    eos || stop.stop_token_ids.contains(&id)
                };
                let early = position < stop.min_tokens as usize && bug != Bug::IgnoresTheMinimum;
                let id = (0..)
                    .map(|retry| token(&request, bug, position, retry))
                    .find(|id| !(early && ends(*id)))
                    .unwrap();
                let counted = match bug {
                    Bug::CountsOnlyNewTokens => step + 1,
                    _ => position + 1,
                };
                let finish = match () {
                    () if wishes.aborted.load(Ordering::Relaxed) => FinishReason::Cancelled,
                    () if wishes.stopped.load(Ordering::Relaxed) => FinishReason::Enough,
                    () if ends(id) => FinishReason::Stop,
                    () if counted >= budget && bug != Bug::EndsWithoutAReason => {
                        FinishReason::Length
                    }
                    () => FinishReason::Unspecified,
                };
                let is_stop_token = stop.stop_token_ids.contains(&id);
                let output = GenerateOutput {
                    token_ids: match finish {
                        FinishReason::Cancelled | FinishReason::Enough => vec![],
                        _ if bug == Bug::SendsEmptyOutputs && step % 2 == 1 => vec![],
                        _ => vec![id],
                    },
                    prompt: (step == 0 && bug != Bug::ForgetsTheUsage).then(|| PromptUsage {
                        prompt_tokens: u32::try_from(request.prompt_token_ids.len()).unwrap(),
                        cached_tokens: 0,
                    }),
                    finish_reason: match bug {
                        Bug::AbortsWithoutAReason if finish == FinishReason::Cancelled => {
                            FinishReason::Length.into()
                        }
                        Bug::StopsInSilence if finish == FinishReason::Enough => {
                            FinishReason::Cancelled.into()
                        }
                        _ => finish.into(),
                    },
                    matched_stop_token: (is_stop_token && bug != Bug::NamesNoStopToken)
                        .then_some(id),
                    ..Default::default()
                };
                let over = match bug {
                    Bug::EndsWithoutAReason => counted >= budget,
                    _ => finish != FinishReason::Unspecified,
                };
                (output, over)
            };
            let extra = usize::from(bug == Bug::GoesOnAfterTheEnd);
            let stream =
                stream::unfold((output, 0, None), move |(output, step, over)| async move {
                    tokio::task::yield_now().await;
                    if over.is_some_and(|at| step > at + extra) {
                        return None;
                    }
                    let (item, is_over) = output(step);
                    let over = over.or(is_over.then_some(step));
                    Some((Ok(item), (output, step + 1, over)))
                });
            Ok(stream.boxed())
        }
        .boxed()
    }

    fn abort(&self, request: &RequestId) {
        for ((id, choice), wishes) in &*self.running.lock().unwrap() {
            let spared = self.bug == Bug::AbortsOnlyTheFirstChoice && *choice > 0;
            if id == request.as_str() && !spared {
                wishes.aborted.store(true, Ordering::Relaxed);
            }
        }
    }

    fn stop(&self, request: &RequestId, choice: u32) {
        for ((id, index), wishes) in &*self.running.lock().unwrap() {
            let is_meant = *index == choice || self.bug == Bug::StopsEveryChoice;
            if id == request.as_str() && is_meant {
                wishes.stopped.store(true, Ordering::Relaxed);
            }
        }
    }

    fn load(&self) -> Load {
        Load {
            running_requests: u32::try_from(self.running.lock().unwrap().len()).unwrap(),
            ..Default::default()
        }
    }
}

conformance_tests!(Toy::new(Bug::None));

/// The same engine behind planes.
mod remote {
    use forebay_engine::remote::{RemoteEngine, behind_planes};
    use forebay_observability::Registry;
    use forebay_runtime::Tasks;

    use super::*;

    async fn engine() -> RemoteEngine {
        behind_planes(Toy::new(Bug::None), &Tasks::new(&Registry::new())).await
    }

    conformance_tests!(engine().await);
}

/// Whether a check fails, as its test would.
macro_rules! catches {
    ($check:ident, $bug:expr) => {
        let engine = Toy::new($bug);
        let check = AssertUnwindSafe(conformance::$check(&engine)).catch_unwind();
        // A bug that leaves something running is found by waiting for it: the clock is paused, and
        // jumps to the deadline.
        assert!(
            check.await.is_err(),
            "{} lets {:?} pass",
            stringify!($check),
            $bug
        );
    };
}

#[tokio::test(start_paused = true)]
async fn planted_bugs_are_caught() {
    catches!(ends_one_choice_when_stopped, Bug::StopsEveryChoice);
    catches!(ends_one_choice_when_stopped, Bug::StopsInSilence);
    catches!(ends_when_aborted, Bug::AbortsOnlyTheFirstChoice);
    catches!(ends_when_aborted, Bug::AbortsWithoutAReason);
    catches!(refuses_a_prompt_without_room, Bug::AcceptsAnyLength);
    catches!(refuses_a_name_twice, Bug::AcceptsNamesTwice);
    catches!(refuses_what_is_malformed, Bug::AcceptsUnknownTokens);
    catches!(resumes_after_emitted_tokens, Bug::CountsOnlyNewTokens);
    catches!(generates_the_budget, Bug::EndsWithoutAReason);
    catches!(generates_the_budget, Bug::ForgetsTheUsage);
    catches!(generates_the_budget, Bug::GoesOnAfterTheEnd);
    catches!(stops_at_end_of_sequence, Bug::IgnoresEndOfSequence);
    catches!(repeats_a_seeded_answer, Bug::IgnoresTheChoice);
    catches!(keeps_the_minimum, Bug::IgnoresTheMinimum);
    catches!(repeats_a_seeded_answer, Bug::IgnoresTheSeed);
    catches!(ends_when_the_stream_is_dropped, Bug::KeepsDroppedStreams);
    catches!(stops_at_a_stop_token, Bug::NamesNoStopToken);
    catches!(generates_the_budget, Bug::SendsEmptyOutputs);
}
