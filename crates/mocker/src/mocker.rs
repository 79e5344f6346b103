mod choice;

use std::ops::Range;
use std::time::Duration;

use forebay_batch_scheduler::{
    Batch, BatchItem, Finish, NewSequence, Priority, Rejection, Sampled, Scheduler,
    SchedulerConfig, SequenceId,
};
use forebay_kv_block_manager::{BlockPool, PoolConfig};
use forebay_perf_model::{Iteration, PerfModel};
use forebay_protocols::worker::{FinishReason, GenerateOutput, GenerateRequest, Load};
use forebay_protocols::{CheckedRequest, Error, ErrorClass, RequestLimits};
use forebay_tokens::{
    BlockChain, BlockSize, ContentKey, ContentNamespace, KvEvent, RequestId, RoutingSeed, TokenId,
};
use rustc_hash::FxHashMap;

use crate::fault::{FaultSchedule, seconds};
use crate::{Answer, ConfigError, Fault, MockerConfig};
use choice::Choice;

/// What separates the KV of simulated models from that of others.
const FINGERPRINT: &[u8] = b"mocker";

/// What a client is told that was refused for want of room in the queue.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An engine that computes nothing and takes as long as one that does.
///
/// Requests, batches, KV blocks, prefix cache, preemption and events are those of a real engine:
/// the same scheduler over the same pool. Only the forward pass is replaced, by waiting for as long
/// as the performance model says, and the sampler, by [`Answer`].
///
/// A pure state machine in whatever time its caller keeps: `now` is the time since any fixed
/// moment, and never goes back. The caller calls [`step`](Self::step) when
/// [`wake_at`](Self::wake_at) has come. One who comes late loses nothing: an iteration begins when
/// the one before it ended, not when somebody looked.
#[derive(Debug)]
pub struct Mocker {
    scheduler: Scheduler,
    limits: RequestLimits,
    content_key: ContentKey,
    timing: PerfModel,
    answer_vocabulary: Range<TokenId>,
    answer_tokens: usize,
    choices: FxHashMap<SequenceId, Choice>,
    by_name: FxHashMap<(RequestId, u32), SequenceId>,
    next_id: u64,
    /// The latest time the caller has told.
    now: Duration,
    running: Option<RunningIteration>,
    /// Choices that go on and have an output.
    ready: Vec<SequenceId>,
    /// The last outputs of choices that are over.
    ended: Vec<(SequenceId, Result<GenerateOutput, Error>)>,
    is_paused: bool,
    faults: FaultSchedule,
    stalled_until: Duration,
    refuses_until: Duration,
    slowness: f64,
    has_crashed: bool,
}

/// A batch that is being computed.
#[derive(Debug)]
struct RunningIteration {
    batch: Batch,
    ends_at: Duration,
}

/// An iteration that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepReport {
    /// When it ended: the time of its tokens.
    pub at: Duration,
    /// How many tokens it computed, of prompts and answers together.
    pub computed_tokens: usize,
    /// How many sequences lost their blocks to others when it began.
    pub preempted: usize,
}

impl Mocker {
    /// An engine without requests, that starts at `now`. Its KV blocks are named under
    /// `content_key`; `instance` says which of the settings' faults it has.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the settings do not work.
    pub fn new(
        config: &MockerConfig,
        instance: u32,
        content_key: ContentKey,
        now: Duration,
    ) -> Result<Self, ConfigError> {
        let block_size =
            BlockSize::new(config.block_size_tokens).map_err(|_| ConfigError::BlockSize)?;
        let pool = PoolConfig::full_attention(config.kv_blocks, block_size);
        let pool = BlockPool::new(pool).map_err(|_| ConfigError::KvBlocks)?;
        let scheduler = SchedulerConfig {
            max_batch_tokens: config.max_batch_tokens,
            max_chunk_tokens: config.max_batch_tokens,
            max_sequences: config.max_sequences,
            max_waiting: config.max_waiting,
            context_length: config.context_length,
        };
        let scheduler = Scheduler::new(scheduler, pool).map_err(ConfigError::Scheduler)?;
        if config.answer_vocabulary().is_empty() {
            return Err(ConfigError::VocabularySize);
        }
        config.faults.iter().try_for_each(|fault| fault.check())?;
        Ok(Self {
            scheduler,
            limits: RequestLimits {
                vocabulary_size: config.token_count() as usize,
                context_length: config.context_length,
                kv_blocks: config.kv_blocks as usize,
                block_size,
            },
            content_key,
            timing: config.timing()?,
            answer_vocabulary: config.answer_vocabulary(),
            answer_tokens: config.answer_tokens,
            choices: FxHashMap::default(),
            by_name: FxHashMap::default(),
            next_id: 0,
            now,
            running: None,
            ready: Vec::new(),
            ended: Vec::new(),
            is_paused: false,
            faults: FaultSchedule::new(&config.faults, instance, now),
            stalled_until: Duration::ZERO,
            refuses_until: Duration::ZERO,
            slowness: 1.0,
            has_crashed: false,
        })
    }

    /// What requests are held to.
    pub fn limits(&self) -> &RequestLimits {
        &self.limits
    }

    /// The longest sequence in tokens, prompt and answer together: that of the settings, or what
    /// the KV blocks can hold if that is less.
    pub fn context_length(&self) -> usize {
        self.scheduler.max_sequence_tokens()
    }

    /// Takes a request into the waiting line.
    ///
    /// Sampling settings are checked, and only the seed and whether the temperature is 0 matter.
    /// What a request asks for beyond that (log probabilities, logit shaping, adapters, features)
    /// is the shell's to refuse.
    ///
    /// # Errors
    ///
    /// As an engine's, before its stream: `InvalidRequest` or `TooLarge` as
    /// [`CheckedRequest::check`], `Conflict` if a choice of this name is running,
    /// `CapacityExhausted` if the waiting line is full or a [`Fault::Refuse`] is on, `Unavailable`
    /// after a [`Fault::Crash`].
    pub fn submit(&mut self, now: Duration, request: GenerateRequest) -> Result<SequenceId, Error> {
        self.advance_to(now);
        self.check()?;
        if self.now < self.refuses_until {
            let message = "the engine refuses requests, as it was told to";
            let error = Error::new(ErrorClass::CapacityExhausted, "refused_by_fault", message);
            return Err(error.with_retry_after(self.refuses_until - self.now));
        }
        let answer = Answer::new(&request, self.answer_vocabulary.clone());
        let request = CheckedRequest::check(request, &self.limits)?;
        if self.by_name.contains_key(&request.name) {
            let (id, choice) = &request.name;
            let message = format!("choice {choice} of request {id} is running");
            return Err(
                Error::new(ErrorClass::Conflict, "duplicate_request", message)
                    .with_param("request_id"),
            );
        }
        let id = SequenceId(self.next_id);
        let choice = Choice::new(&request, answer, self.answer_tokens);
        let salt = &request.cache_salt;
        let namespace = ContentNamespace::new(&self.content_key, FINGERPRINT, salt.as_bytes());
        let seed = RoutingSeed::new("", salt);
        let sequence = NewSequence {
            id,
            prompt: request.prompt,
            emitted: request.emitted,
            max_new_tokens: request.max_tokens,
            priority: Priority(request.priority),
            chain: BlockChain::new(namespace, seed, self.limits.block_size),
        };
        self.scheduler
            .submit(sequence)
            .map_err(|rejected| refusal(rejected.reason))?;
        self.next_id += 1;
        self.by_name.insert(request.name, id);
        self.choices.insert(id, choice);
        Ok(id)
    }

    /// Ends a choice from outside, and gives its last output with what was not taken yet; `None` if
    /// there is no such choice.
    pub fn abort(&mut self, id: SequenceId) -> Option<GenerateOutput> {
        self.scheduler.abort(id);
        let mut choice = self.forget(id)?;
        let mut last = choice.take_pending();
        if !choice.has_begun {
            last.prompt = Some(choice.prompt_usage(0));
        }
        last.finish_reason = FinishReason::Cancelled.into();
        Some(last)
    }

    /// Ends the iteration that is over by `now`, if there is one, and begins the next.
    pub fn step(&mut self, now: Duration) -> Option<StepReport> {
        self.advance_to(now);
        let ended = self.end_iteration();
        if self.running.is_none() && self.is_runnable() {
            let from = ended.map_or(self.now, |ended| ended.at);
            self.begin_iteration(from);
        }
        ended
    }

    /// When [`step`](Self::step) has something to do next; perhaps in the past. `None` if it has
    /// nothing to do until somebody asks for something.
    pub fn wake_at(&self) -> Option<Duration> {
        let iteration = match &self.running {
            Some(running) => Some(running.ends_at),
            None => self.is_runnable().then_some(self.now),
        };
        let both = iteration.into_iter().chain(self.faults.next_at());
        both.min().filter(|_| !self.has_crashed)
    }

    /// The outputs since the last call, those of one choice in one piece. After a finish reason or
    /// an error the choice is gone.
    pub fn take_outputs(&mut self) -> Vec<(SequenceId, Result<GenerateOutput, Error>)> {
        let mut outputs = Vec::with_capacity(self.ready.len() + self.ended.len());
        for id in self.ready.drain(..) {
            // Those that have ended since are below, with all of their tokens.
            if let Some(choice) = self.choices.get_mut(&id) {
                outputs.push((id, Ok(choice.take_pending())));
            }
        }
        outputs.append(&mut self.ended);
        outputs
    }

    /// Makes something go wrong now.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Fault`] for numbers that cannot be.
    pub fn inject(&mut self, now: Duration, fault: Fault) -> Result<(), ConfigError> {
        fault.check()?;
        self.advance_to(now);
        self.suffer(self.now, fault);
        Ok(())
    }

    /// Whether it can be asked for anything.
    ///
    /// # Errors
    ///
    /// `Unavailable` after a [`Fault::Crash`].
    pub fn check(&self) -> Result<(), Error> {
        if self.has_crashed {
            return Err(crashed());
        }
        Ok(())
    }

    /// From now on requests are accepted, but no iteration begins.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// The end of a pause.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Forgets all cached KV that no running sequence holds.
    pub fn clear_kv_cache(&mut self) {
        self.scheduler.pool().clear();
    }

    /// What the engine is doing now.
    pub fn load(&self) -> Load {
        if self.has_crashed {
            return Load::default();
        }
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

    /// What changed in the KV cache since the last call, in order.
    pub fn take_kv_events(&mut self) -> Vec<KvEvent> {
        self.scheduler.pool().take_events()
    }

    /// All that the KV cache holds, as events for an observer that knows nothing.
    pub fn kv_snapshot(&self) -> Vec<KvEvent> {
        self.scheduler.pool().snapshot()
    }

    fn is_runnable(&self) -> bool {
        !self.is_paused && !self.has_crashed && !self.scheduler.is_idle()
    }

    /// Lets the faults happen that come before the running iteration ends.
    fn advance_to(&mut self, now: Duration) {
        self.now = self.now.max(now);
        loop {
            let until = self
                .running
                .as_ref()
                .map_or(self.now, |running| running.ends_at.min(self.now));
            match self.faults.take_due(until) {
                Some((at, fault)) => self.suffer(at, fault),
                None => return,
            }
        }
    }

    fn suffer(&mut self, at: Duration, fault: Fault) {
        match fault {
            Fault::Stall { seconds: length } => {
                let length = seconds(length);
                if let Some(running) = &mut self.running {
                    running.ends_at = running.ends_at.saturating_add(length);
                }
                self.stalled_until = self.stalled_until.max(at.saturating_add(length));
            }
            Fault::Refuse { seconds: length } => {
                let until = at.saturating_add(seconds(length));
                self.refuses_until = self.refuses_until.max(until);
            }
            Fault::Slow { factor } => self.slowness = factor,
            Fault::Crash => self.crash(),
        }
    }

    fn crash(&mut self) {
        self.has_crashed = true;
        self.running = None;
        self.by_name.clear();
        self.ready.clear();
        let mut choices: Vec<_> = self.choices.drain().collect();
        choices.sort_unstable_by_key(|(id, _)| *id);
        for (id, mut choice) in choices {
            self.scheduler.abort(id);
            let pending = choice.take_pending();
            if !pending.token_ids.is_empty() {
                self.ended.push((id, Ok(pending)));
            }
            self.ended.push((id, Err(crashed())));
        }
        // What was being computed is not any more, and its blocks are free.
        drop(self.scheduler.schedule());
    }

    fn begin_iteration(&mut self, from: Duration) {
        let batch = self.scheduler.schedule();
        if batch.is_empty() {
            return;
        }
        let work = batch
            .items()
            .iter()
            .map(work_of)
            .fold(Iteration::default(), |sum, item| sum + item);
        let mut length = self.timing.iteration_time(&work);
        if self.slowness != 1.0 {
            length = seconds(length.as_secs_f64() * self.slowness);
        }
        let ends_at = from.max(self.stalled_until).saturating_add(length);
        self.running = Some(RunningIteration { batch, ends_at });
    }

    fn end_iteration(&mut self) -> Option<StepReport> {
        let now = self.now;
        let running = self.running.take_if(|running| running.ends_at <= now)?;
        let RunningIteration { batch, ends_at } = running;
        let report = StepReport {
            at: ends_at,
            computed_tokens: batch.n_tokens(),
            preempted: batch.preempted().len(),
        };
        let mut sampled = Vec::with_capacity(batch.n_samples());
        for item in batch.items().iter().filter(|item| item.samples) {
            sampled.push(match self.choices.get_mut(&item.id) {
                Some(choice) => {
                    if !choice.has_pending() {
                        self.ready.push(item.id);
                    }
                    choice.generate(item.cached_tokens)
                }
                // Aborted meanwhile; its place wants a token all the same.
                None => Sampled {
                    token: 0,
                    stop: true,
                },
            });
        }
        for progress in self.scheduler.complete(batch, &sampled) {
            let Some(finish) = progress.finish else {
                continue;
            };
            let mut choice = self
                .forget(progress.id)
                .expect("every sequence is a choice");
            let mut last = choice.take_pending();
            last.finish_reason = match finish {
                Finish::Stop => FinishReason::Stop,
                Finish::Length => FinishReason::Length,
            }
            .into();
            self.ended.push((progress.id, Ok(last)));
        }
        Some(report)
    }

    fn forget(&mut self, id: SequenceId) -> Option<Choice> {
        let choice = self.choices.remove(&id)?;
        self.by_name.remove(&choice.name);
        Some(choice)
    }
}

/// What computing one part of a batch is to the performance model.
fn work_of(item: &BatchItem) -> Iteration {
    let (start, end) = (item.tokens.start as u64, item.tokens.end as u64);
    if item.samples && end - start == 1 {
        Iteration::decode(1, end)
    } else {
        Iteration::prefill(start..end)
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

fn crashed() -> Error {
    let message = "the engine has crashed";
    Error::new(ErrorClass::Unavailable, "engine_crashed", message)
}
