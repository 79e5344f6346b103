//! An engine that follows a script, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use forebay_engine::{
    Capabilities, Engine, EngineInfo, Error, FinishReason, GenerateOutput, GenerateRequest,
    GenerateStream, Load,
};
use forebay_protocols::worker::{PromptUsage, TokenLogprobs, TopLogprob};
use forebay_tokens::{BlockSize, RequestId};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, watch};

/// What happens next in a stream.
pub(crate) enum Turn {
    Output(GenerateOutput),
    Fail(Error),
    /// Go on when the test adds a permit; for ever, if it never does.
    Wait(Arc<Semaphore>),
}

type Script = dyn Fn(&GenerateRequest) -> Result<Vec<Turn>, Error> + Send + Sync;

/// An engine for the tokenizer of bytes.
pub(crate) fn engine_info(capabilities: Capabilities) -> EngineInfo {
    EngineInfo {
        model: "scripted".into(),
        capabilities,
        context_length: 200,
        vocabulary_size: 259,
        block_size: BlockSize::new(16).unwrap(),
        kv_blocks: 64,
        eos_token_ids: vec![258],
        data_parallel_ranks: 1,
    }
}

pub(crate) struct ScriptedEngine {
    info: EngineInfo,
    script: Box<Script>,
    requests: Mutex<Vec<GenerateRequest>>,
    live: watch::Sender<usize>,
}

impl ScriptedEngine {
    pub(crate) fn new(
        script: impl Fn(&GenerateRequest) -> Result<Vec<Turn>, Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            info: engine_info(Capabilities::GENERATE | Capabilities::LOGPROBS),
            script: Box::new(script),
            requests: Mutex::default(),
            live: watch::Sender::new(0),
        })
    }

    /// Says this text, one byte a token, until its end or the budget's.
    pub(crate) fn saying(text: &'static str) -> Arc<Self> {
        Self::new(move |request| Ok(say(request, text)))
    }

    /// Everything it was asked, in order.
    pub(crate) fn requests(&self) -> Vec<GenerateRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// How many streams there are.
    pub(crate) fn live(&self) -> usize {
        *self.live.borrow()
    }

    /// Waits until there are this many streams.
    pub(crate) async fn until_live(&self, streams: usize) {
        let mut live = self.live.subscribe();
        live.wait_for(|live| *live == streams).await.unwrap();
    }
}

impl Engine for ScriptedEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<GenerateStream, Error>> {
        let script = (self.script)(&request);
        self.requests.lock().unwrap().push(request);
        let guard = Live::new(&self.live);
        Box::pin(async move {
            let turns = script?.into_iter();
            Ok(stream::unfold((turns, guard), async |(mut turns, guard)| {
                loop {
                    match turns.next()? {
                        Turn::Output(output) => return Some((Ok(output), (turns, guard))),
                        Turn::Fail(error) => return Some((Err(error), (turns, guard))),
                        Turn::Wait(gate) => gate.acquire().await.unwrap().forget(),
                    }
                }
            })
            .boxed())
        })
    }

    fn abort(&self, _: &RequestId) {}

    fn load(&self) -> Load {
        let running_requests = self.live() as u32;
        Load {
            running_requests,
            waiting_requests: 10 * running_requests,
            kv_blocks_total: self.info.kv_blocks,
            kv_blocks_active: 2 * running_requests,
            kv_blocks_cached: 0,
            prefill_tokens_pending: 30 * u64::from(running_requests),
        }
    }
}

struct Live(watch::Sender<usize>);

impl Live {
    fn new(live: &watch::Sender<usize>) -> Self {
        live.send_modify(|live| *live += 1);
        Self(live.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.send_modify(|live| *live -= 1);
    }
}

/// The turns that say `text`, one byte a token, and end as an engine would.
pub(crate) fn say(request: &GenerateRequest, text: &str) -> Vec<Turn> {
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    tokens_as_turns(request, &tokens)
}

/// The turns that emit these tokens one by one, until a stop token, the budget or their end.
pub(crate) fn tokens_as_turns(request: &GenerateRequest, tokens: &[u32]) -> Vec<Turn> {
    let stop = request.stop.as_ref().unwrap();
    let budget = stop.max_tokens.unwrap() as usize;
    let mut turns = vec![Turn::Output(opening(request, 0))];
    for (index, &token) in tokens.iter().take(budget).enumerate() {
        let mut output = output(request, &[token]);
        let is_stop = stop.stop_token_ids.contains(&token);
        if is_stop || stop.eos_token_ids.contains(&token) {
            output.finish_reason = FinishReason::Stop.into();
            output.matched_stop_token = is_stop.then_some(token);
        } else if index + 1 == budget || index + 1 == tokens.len() {
            output.finish_reason = FinishReason::Length.into();
        }
        let ends = output.finish_reason != 0;
        turns.push(Turn::Output(output));
        if ends {
            break;
        }
    }
    turns
}

/// The first output, without a token.
pub(crate) fn opening(request: &GenerateRequest, cached_tokens: u32) -> GenerateOutput {
    GenerateOutput {
        prompt: Some(PromptUsage {
            prompt_tokens: request.prompt_token_ids.len() as u32,
            cached_tokens,
        }),
        ..Default::default()
    }
}

/// Tokens, with log probabilities if they were asked for: -0.5 for the chosen, and `?` as the best
/// of those beside it.
pub(crate) fn output(request: &GenerateRequest, tokens: &[u32]) -> GenerateOutput {
    let wanted = request.output.and_then(|output| output.logprobs);
    let logprobs = wanted.map_or(Vec::new(), |top| {
        let other = TopLogprob {
            token_id: u32::from(b'?'),
            logprob: -0.25,
        };
        let entry = |_: &u32| TokenLogprobs {
            logprob: -0.5,
            top: vec![other; top.min(1) as usize],
        };
        tokens.iter().map(entry).collect()
    });
    GenerateOutput {
        token_ids: tokens.to_vec(),
        logprobs,
        ..Default::default()
    }
}
