//! The engine without its thread: requests in, steps, outputs out.

mod blocks;

use std::sync::Arc;
use std::time::Duration;

use forebay_batch_scheduler::{
    Batch, Finish, NewSequence, Priority, Rejection, Sampled, Scheduler, SequenceId,
};
use forebay_engine::{
    Capabilities, Error, ErrorClass, FinishReason, GenerateOutput, GenerateRequest, Load,
};
use forebay_kv_block_manager::{BlockPool, GroupStats, PoolConfig};
use forebay_protocols::worker::PromptUsage;
use forebay_protocols::{CheckedRequest, RequestLimits, SamplingRules, StopRules};
use forebay_tokens::{
    BlockChain, BlockSize, CacheGroup, ContentKey, ContentNamespace, KvEvent, RequestId,
    RoutingSeed, TokenId,
};
use rustc_hash::FxHashMap;

use crate::config::EngineConfig;
use crate::error::StartError;
use crate::kv_memory::KvMemory;
use crate::model::Model;
use crate::runner::{Logits, LogitsWanted, Runner, RunnerOptions, SequenceStep};
use crate::sampling::{Sampler, SamplingError, TokenHistory, TokenRules};

pub use blocks::KvBlock;

/// What the engine can do; its requests are held to it.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::GENERATE
    .union(Capabilities::LOGPROBS)
    .union(Capabilities::LOGIT_SHAPING)
    .union(Capabilities::PREFIX_CACHE)
    .union(Capabilities::KV_EVENTS)
    .union(Capabilities::EXACT)
    .union(Capabilities::PAUSE)
    .union(Capabilities::STOP);

/// Llama models have one.
const GROUP: CacheGroup = CacheGroup(0);

/// What a client is told that was refused for want of room in the queue. A step takes a fraction
/// of it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An engine that is driven from outside: no thread of its own but those that compute, no clock,
/// no channel. [`NativeEngine`](crate::NativeEngine) drives one.
///
/// **Exactness**: the tokens of a choice, and the bits of every row of logits behind them, depend
/// on the model and the request only: not on what else runs, how prompts are cut into chunks, what
/// was cached, imported or preempted, how many tokens were already emitted elsewhere, or on the
/// CPU.
///
/// ```
/// # use std::{io::Cursor, sync::Arc};
/// # use forebay_native_engine::{EngineConfig, EngineCore, Model, ModelShape, random_gguf};
/// # use forebay_engine::GenerateRequest;
/// # use forebay_protocols::worker::StopConditions;
/// # use forebay_tokens::ContentKey;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let shape = ModelShape {
/// #     vocabulary: 300, context_length: 64, layers: 1, hidden: 32, feed_forward: 32, heads: 1,
/// #     kv_heads: 1, head_dim: 32,
/// # };
/// # let model = Arc::new(Model::from_gguf(Cursor::new(random_gguf(&shape, 1)))?);
/// let mut core = EngineCore::new(&EngineConfig::default(), model, ContentKey::new([7; 32]))?;
/// core.submit(GenerateRequest {
///     request_id: "hello".into(),
///     prompt_token_ids: vec![1, 2, 3],
///     stop: Some(StopConditions { max_tokens: Some(5), ..Default::default() }),
///     ..Default::default()
/// })?;
/// let mut answer = Vec::new();
/// while core.is_runnable() {
///     for (_, output) in core.step().outputs {
///         answer.extend(output?.token_ids);
///     }
/// }
/// assert_eq!(answer.len(), 5);
/// # Ok(())
/// # }
/// ```
pub struct EngineCore {
    runner: Runner,
    scheduler: Scheduler,
    content_key: ContentKey,
    fingerprint: [u8; 32],
    limits: RequestLimits,
    sampler: Sampler,
    logits: Logits,
    choices: FxHashMap<SequenceId, RunningChoice>,
    by_name: FxHashMap<(RequestId, u32), SequenceId>,
    next_id: u64,
    is_paused: bool,
}

/// What is remembered of a choice beside its tokens.
struct RunningChoice {
    name: (RequestId, u32),
    prompt_tokens: usize,
    sampling: SamplingRules,
    history: TokenHistory,
    stop: StopRules,
    logprobs: Option<usize>,
    /// Whether an output was given.
    has_begun: bool,
}

/// What a step did.
#[derive(Debug, Default)]
pub struct StepReport {
    /// The next output of each choice that has one. After a finish reason or an error the choice
    /// is gone.
    pub outputs: Vec<(SequenceId, Result<GenerateOutput, Error>)>,
    /// How many tokens were computed, of prompts and answers together. 0 if there was nothing to
    /// do, or nothing that could be done.
    pub computed_tokens: usize,
    /// How many sequences lost their blocks to others and wait again.
    pub preempted: usize,
}

impl EngineCore {
    /// An engine for `model`, whose KV blocks are named under `content_key`; the setting
    /// [`EngineConfig::content_key`] is not looked at.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the settings do not work for the model, or memory or threads cannot be
    /// had.
    pub fn new(
        config: &EngineConfig,
        model: Arc<Model>,
        content_key: ContentKey,
    ) -> Result<Self, StartError> {
        let block_size = BlockSize::new(config.block_size_tokens)?;
        let layout = model.kv_layout(block_size);
        let bytes_per_block = layout.bytes_per_block();
        let kv_blocks = config.kv_cache_bytes / bytes_per_block as u64;
        let kv_blocks = match u32::try_from(kv_blocks) {
            Ok(blocks) if blocks > 0 => blocks,
            _ => {
                return Err(StartError::KvCacheBytes {
                    bytes: config.kv_cache_bytes,
                    bytes_per_block,
                });
            }
        };
        let pool = BlockPool::new(PoolConfig::full_attention(kv_blocks, block_size))
            .expect("a pool of one group with blocks is possible");
        let shape = *model.shape();
        let scheduler = Scheduler::new(config.scheduler(shape.context_length), pool)?;
        let memory = KvMemory::new(layout, kv_blocks as usize)?;
        let mut options = RunnerOptions::default();
        options.threads = config.threads.unwrap_or(options.threads);
        Ok(Self {
            fingerprint: model.kv_fingerprint(&layout),
            runner: Runner::new(model, memory, options)?,
            scheduler,
            content_key,
            limits: RequestLimits {
                vocabulary_size: shape.vocabulary,
                context_length: shape.context_length,
                kv_blocks: kv_blocks as usize,
                block_size,
            },
            sampler: Sampler::new(),
            logits: Logits::default(),
            choices: FxHashMap::default(),
            by_name: FxHashMap::default(),
            next_id: 0,
            is_paused: false,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.runner.model()
    }

    /// Tokens a KV block.
    pub fn block_size(&self) -> BlockSize {
        self.limits.block_size
    }

    /// The longest sequence in tokens, prompt and answer together: the model's, or what the KV
    /// blocks can hold if that is less.
    pub fn context_length(&self) -> usize {
        self.scheduler.max_sequence_tokens()
    }

    /// KV blocks in all.
    pub fn kv_blocks(&self) -> usize {
        self.limits.kv_blocks
    }

    fn pool(&self) -> &BlockPool {
        self.scheduler.pool()
    }

    /// The chain that names the blocks of `tokens` for requests with this salt.
    fn chain(&self, tokens: &[TokenId], cache_salt: &str) -> BlockChain {
        let namespace =
            ContentNamespace::new(&self.content_key, &self.fingerprint, cache_salt.as_bytes());
        let seed = RoutingSeed::new("", cache_salt);
        let mut chain = BlockChain::new(namespace, seed, self.limits.block_size);
        chain.extend(tokens);
        chain
    }

    /// Takes a request into the waiting line.
    ///
    /// # Errors
    ///
    /// As [`Engine::generate`](forebay_engine::Engine::generate) before its stream.
    pub fn submit(&mut self, request: GenerateRequest) -> Result<SequenceId, Error> {
        CAPABILITIES.check(&request)?;
        let request = CheckedRequest::check(request, &self.limits)?;
        if self.by_name.contains_key(&request.name) {
            let (id, choice) = &request.name;
            let message = format!("choice {choice} of request {id} is running");
            return Err(
                Error::new(ErrorClass::Conflict, "duplicate_request", message)
                    .with_param("request_id"),
            );
        }
        let mut history = TokenHistory::default();
        if request.sampling.has_penalties() {
            history = TokenHistory::new(&request.prompt);
            request
                .emitted
                .iter()
                .for_each(|token| history.push(*token));
        }
        let id = SequenceId(self.next_id);
        let choice = RunningChoice {
            name: request.name,
            prompt_tokens: request.prompt.len(),
            sampling: request.sampling,
            history,
            stop: request.stop,
            logprobs: request.logprobs,
            has_begun: false,
        };
        let sequence = NewSequence {
            id,
            prompt: request.prompt,
            emitted: request.emitted,
            max_new_tokens: request.max_tokens,
            priority: Priority(request.priority),
            chain: self.chain(&[], &request.cache_salt),
        };
        self.scheduler
            .submit(sequence)
            .map_err(|rejected| refusal(rejected.reason))?;
        self.next_id += 1;
        self.by_name.insert(choice.name.clone(), id);
        self.choices.insert(id, choice);
        Ok(id)
    }

    /// Whether a step would do something: there are sequences, and the engine is not paused.
    pub fn is_runnable(&self) -> bool {
        !self.is_paused && !self.scheduler.is_idle()
    }

    /// Computes one batch, and draws a token for every sequence in it that has its prompt
    /// computed.
    pub fn step(&mut self) -> StepReport {
        self.step_observed(&mut |_, _| ())
    }

    /// Like [`step`](Self::step), and shows every row of logits, as the model gave it, to
    /// `observe` before a token is drawn from it.
    pub fn step_observed(&mut self, observe: &mut dyn FnMut(SequenceId, &[f32])) -> StepReport {
        if !self.is_runnable() {
            return StepReport::default();
        }
        let batch = self.scheduler.schedule();
        let mut report = StepReport {
            outputs: Vec::with_capacity(batch.n_samples()),
            computed_tokens: batch.n_tokens(),
            preempted: batch.preempted().len(),
        };
        match self.compute(&batch) {
            Ok(()) => self.sample(batch, observe, &mut report),
            Err(error) => {
                for item in batch.items() {
                    report.outputs.push((item.id, Err(error.clone())));
                    self.scheduler.abort(item.id);
                    self.forget(item.id);
                }
            }
        }
        report
    }

    /// Computes the KV of a batch, and the logits that are needed.
    fn compute(&mut self, batch: &Batch) -> Result<(), Error> {
        let work: Vec<SequenceStep<'_>> = batch
            .items()
            .iter()
            .map(|item| {
                let sequence = self
                    .scheduler
                    .sequence(item.id)
                    .expect("what is in a batch is in the scheduler");
                SequenceStep {
                    tokens: &sequence.tokens()[item.tokens.clone()],
                    start: item.tokens.start,
                    blocks: sequence.block_table(),
                    logits: if item.samples {
                        LogitsWanted::Last
                    } else {
                        LogitsWanted::None
                    },
                }
            })
            .collect();
        self.runner
            .step(&work, &mut self.logits)
            .map_err(|error| Error::internal(format!("a step was refused: {error}")))
    }

    /// Draws tokens from the logits of a batch, and completes it.
    fn sample(
        &mut self,
        batch: Batch,
        observe: &mut dyn FnMut(SequenceId, &[f32]),
        report: &mut StepReport,
    ) {
        let mut sampled = Vec::with_capacity(batch.n_samples());
        let mut outputs = Vec::with_capacity(batch.n_samples());
        for (i, item) in batch.items().iter().enumerate() {
            if !item.samples {
                continue;
            }
            let logits = self.logits.last_mut(i).expect("logits were asked for");
            observe(item.id, logits);
            let sequence = self.scheduler.sequence(item.id);
            let position = sequence.map_or(0, |sequence| sequence.emitted().len());
            let choice = self
                .choices
                .get_mut(&item.id)
                .expect("every sequence is a choice");
            match choice.next(logits, position, item.cached_tokens, &mut self.sampler) {
                Ok((output, token)) => {
                    let stop = choice.stop.ends(token);
                    sampled.push(Sampled { token, stop });
                    outputs.push(output);
                }
                Err(error) => {
                    // Its place in the batch wants a token all the same.
                    let (token, stop) = (0, true);
                    sampled.push(Sampled { token, stop });
                    self.scheduler.abort(item.id);
                    self.forget(item.id);
                    report.outputs.push((item.id, Err(error)));
                }
            }
        }
        let mut outputs = outputs.into_iter();
        for progress in self.scheduler.complete(batch, &sampled) {
            if progress.token.is_none() {
                continue;
            }
            let mut output = outputs.next().expect("one output for each token");
            if let Some(finish) = progress.finish {
                output.finish_reason = match finish {
                    Finish::Stop => FinishReason::Stop,
                    Finish::Length => FinishReason::Length,
                }
                .into();
                self.forget(progress.id);
            }
            report.outputs.push((progress.id, Ok(output)));
        }
    }

    /// Ends a choice from outside, and gives its last output; `None` if there is no such choice.
    pub fn abort(&mut self, id: SequenceId) -> Option<GenerateOutput> {
        self.scheduler.abort(id);
        let choice = self.forget(id)?;
        Some(GenerateOutput {
            prompt: (!choice.has_begun).then(|| choice.prompt_usage(0)),
            finish_reason: FinishReason::Cancelled.into(),
            ..GenerateOutput::default()
        })
    }

    fn forget(&mut self, id: SequenceId) -> Option<RunningChoice> {
        let choice = self.choices.remove(&id)?;
        self.by_name.remove(&choice.name);
        Some(choice)
    }

    /// From now on requests are accepted, but steps do nothing.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// The end of a pause.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Forgets all cached KV that no running sequence holds.
    pub fn clear_kv_cache(&mut self) {
        self.pool().clear();
    }

    /// What the engine is doing now.
    pub fn load(&self) -> Load {
        let load = self.scheduler.load();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Load {
            running_requests: small(load.running),
            waiting_requests: small(load.waiting),
            kv_blocks_total: small(load.total_blocks),
            kv_blocks_active: small(load.active_blocks),
            kv_blocks_cached: small(load.cached_blocks),
            prefill_tokens_pending: load.prefill_tokens as u64,
        }
    }

    /// KV blocks by state, and what the cache was good for so far.
    pub fn kv_stats(&self) -> GroupStats {
        self.pool().stats(GROUP)
    }

    /// What changed in the KV cache since the last call, in order.
    pub fn take_kv_events(&mut self) -> Vec<KvEvent> {
        self.pool().take_events()
    }

    /// All that the KV cache holds, as events for an observer that knows nothing.
    pub fn kv_snapshot(&self) -> Vec<KvEvent> {
        self.pool().snapshot()
    }
}

impl RunningChoice {
    /// Draws the token at `position`, and makes the output of it.
    fn next(
        &mut self,
        logits: &mut [f32],
        position: usize,
        cached_tokens: usize,
        sampler: &mut Sampler,
    ) -> Result<(GenerateOutput, TokenId), Error> {
        let rules = TokenRules {
            params: &self.sampling,
            history: &self.history,
            choice_index: self.name.1,
            position,
            banned: self.stop.banned(position),
            logprobs: self.logprobs,
        };
        let chosen = sampler
            .choose(logits, &rules)
            .map_err(|error| match error {
                SamplingError::NotFinite => {
                    Error::internal("the model gave a logit that is infinite or no number")
                }
                SamplingError::NothingLeft => {
                    let rule = "every token of the vocabulary is a stop token";
                    Error::invalid("stop.min_tokens", rule)
                }
            })?;
        let token = chosen.token;
        if self.sampling.has_penalties() {
            self.history.push(token);
        }
        let output = GenerateOutput {
            token_ids: vec![token],
            logprobs: chosen.logprobs.into_iter().collect(),
            prompt: (!self.has_begun).then(|| self.prompt_usage(cached_tokens)),
            matched_stop_token: self.stop.matched(token),
            ..GenerateOutput::default()
        };
        self.has_begun = true;
        Ok((output, token))
    }

    fn prompt_usage(&self, cached_tokens: usize) -> PromptUsage {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        PromptUsage {
            prompt_tokens: small(self.prompt_tokens),
            cached_tokens: small(cached_tokens),
        }
    }
}

/// What the scheduler refuses although the request was checked.
fn refusal(reason: Rejection) -> Error {
    match reason {
        Rejection::QueueFull { waiting } => Error::new(
            ErrorClass::CapacityExhausted,
            "queue_full",
            format!("{waiting} requests are waiting already"),
        )
        .with_retry_after(RETRY_AFTER),
        other => Error::internal(format!("the scheduler refused a checked request: {other}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
