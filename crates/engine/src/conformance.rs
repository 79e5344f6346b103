//! The suite that holds an engine to the [`Engine`] contract.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes one test of each check here, each with a
//! fresh engine. A check of a capability that the engine does not announce asks that it is refused
//! by name instead, so no check passes for want of something to check.
//!
//! A check panics where the engine breaks the contract. It needs a tokio runtime with time.

use std::collections::HashMap;
use std::time::Duration;

use forebay_protocols::worker::{LogitBias, OutputOptions, SamplingParams, StopConditions};
use forebay_tokens::{CacheGroup, KvEvent, RequestId, RoutingHash, RoutingSeed, Tier, TokenId};
use futures::{StreamExt, future};
use tokio::time::{sleep, timeout};

use crate::{
    Capabilities, Control, EmbedRequest, EncodeRequest, Engine, EngineInfo, Error, ErrorClass,
    FinishReason, GenerateOutput, GenerateRequest, GenerateStream, KvEventBatch, KvEventStream,
    MediaRequest, ScoreRequest,
};

/// How long a check waits for what must happen before it calls it missing.
const DEADLINE: Duration = Duration::from_secs(60);

/// Makes a module `engine_contract` of tests, one a check. `$make` is an expression that makes a fresh
/// engine (a value, not a reference); it is evaluated inside an async function. The crate that
/// calls it needs `tokio` with `macros` and `time`.
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr) => {
        $crate::conformance_tests! { @each $make;
            describes_itself
            generates_the_budget
            repeats_a_greedy_answer
            repeats_a_seeded_answer
            resumes_after_emitted_tokens
            answers_alike_in_a_crowd
            stops_at_a_stop_token
            stops_at_end_of_sequence
            keeps_the_minimum
            reports_logprobs
            obeys_logit_bias
            reuses_a_prefix
            keeps_salts_apart
            announces_its_cache
            ends_when_the_stream_is_dropped
            ends_when_aborted
            ends_one_choice_when_stopped
            refuses_a_prompt_without_room
            refuses_what_is_malformed
            refuses_a_name_twice
            refuses_what_it_lacks
            pauses_and_resumes
        }
    };
    (@each $make:expr; $($check:ident)*) => {
        mod engine_contract {
            use super::*;
            $(
                #[tokio::test]
                async fn $check() {
                    $crate::conformance::$check(&$make).await;
                }
            )*
        }
    };
}

/// What a whole stream said.
struct Answer {
    tokens: Vec<TokenId>,
    logprobs: Vec<forebay_protocols::worker::TokenLogprobs>,
    cached_tokens: u32,
    finish: FinishReason,
    matched_stop_token: Option<TokenId>,
}

/// A prompt of ordinary tokens that `salt` and `length` decide.
fn prompt(info: &EngineInfo, salt: u64, length: usize) -> Vec<TokenId> {
    let mut state = salt;
    let mut token = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let id = (z ^ (z >> 31)) % u64::from(info.vocabulary_size);
        u32::try_from(id).expect("below a u32")
    };
    std::iter::repeat_with(&mut token)
        .filter(|id| !info.eos_token_ids.contains(id))
        .take(length)
        .collect()
}

/// Greedy, `tokens` tokens, whatever the model would end with.
fn request(id: &str, prompt: &[TokenId], tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: id.to_owned(),
        prompt_token_ids: prompt.to_vec(),
        sampling: Some(SamplingParams {
            temperature: Some(0.0),
            ..Default::default()
        }),
        stop: Some(StopConditions {
            max_tokens: Some(tokens),
            ignore_eos: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn seeded(id: &str, prompt: &[TokenId], tokens: u32, seed: u64) -> GenerateRequest {
    let mut request = request(id, prompt, tokens);
    request.sampling = Some(SamplingParams {
        temperature: Some(1.0),
        seed,
        ..Default::default()
    });
    request
}

async fn start(engine: &dyn Engine, request: GenerateRequest) -> GenerateStream {
    match engine.generate(request).await {
        Ok(stream) => stream,
        Err(error) => panic!("the engine refused a proper request: {error:?}"),
    }
}

async fn refused(engine: &dyn Engine, request: GenerateRequest) -> Error {
    match engine.generate(request).await {
        Ok(_) => panic!("the engine accepted what it must refuse"),
        Err(error) => error,
    }
}

async fn next(stream: &mut GenerateStream) -> Option<GenerateOutput> {
    let output = timeout(DEADLINE, stream.next()).await;
    let output = output.expect("the engine went silent");
    output.map(|output| output.expect("a proper request failed"))
}

/// What an answer depends on that is not in it.
#[derive(Clone, Copy)]
struct Asked {
    prompt_tokens: usize,
    /// Some of the answer was emitted before.
    is_resumed: bool,
    wants_logprobs: bool,
}

impl Asked {
    /// Such a prompt, and nothing else.
    fn plainly(prompt_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            is_resumed: false,
            wants_logprobs: false,
        }
    }
}

impl From<&GenerateRequest> for Asked {
    fn from(request: &GenerateRequest) -> Self {
        Self {
            prompt_tokens: request.prompt_token_ids.len(),
            is_resumed: !request.emitted_token_ids.is_empty(),
            wants_logprobs: request.output.is_some_and(|o| o.logprobs.is_some()),
        }
    }
}

/// Reads a stream to its end and holds it to the contract.
async fn read(stream: &mut GenerateStream, asked: Asked) -> Answer {
    let mut answer = Answer {
        tokens: Vec::new(),
        logprobs: Vec::new(),
        cached_tokens: 0,
        finish: FinishReason::Unspecified,
        matched_stop_token: None,
    };
    let mut first = true;
    while let Some(output) = next(stream).await {
        assert_eq!(
            answer.finish,
            FinishReason::Unspecified,
            "an output came after the end"
        );
        match output.prompt {
            Some(usage) => {
                assert!(first, "prompt usage came twice or late");
                assert_eq!(usage.prompt_tokens as usize, asked.prompt_tokens);
                // The last token is always computed; of a resumed request, that is an emitted one.
                let computed = usize::from(!asked.is_resumed);
                assert!(
                    usage.cached_tokens as usize + computed <= asked.prompt_tokens,
                    "more of the prompt was cached than can be"
                );
                answer.cached_tokens = usage.cached_tokens;
            }
            None => assert!(!first, "the first output lacks the prompt's usage"),
        }
        answer.finish = output.finish_reason();
        let is_last = answer.finish != FinishReason::Unspecified;
        assert!(
            first || is_last || !output.token_ids.is_empty(),
            "an output in the middle is empty"
        );
        let logprobs = if asked.wants_logprobs {
            output.token_ids.len()
        } else {
            0
        };
        assert_eq!(output.logprobs.len(), logprobs, "one logprob a token");
        answer.tokens.extend(output.token_ids);
        answer.logprobs.extend(output.logprobs);
        answer.matched_stop_token = output.matched_stop_token;
        first = false;
    }
    assert_ne!(
        answer.finish,
        FinishReason::Unspecified,
        "the stream ended without a reason"
    );
    answer
}

async fn answer(engine: &dyn Engine, request: GenerateRequest) -> Answer {
    let asked = Asked::from(&request);
    let mut stream = start(engine, request).await;
    read(&mut stream, asked).await
}

async fn tokens(engine: &dyn Engine, request: GenerateRequest) -> Vec<TokenId> {
    answer(engine, request).await.tokens
}

/// Waits until the engine holds nothing for any request.
async fn idle(engine: &dyn Engine) {
    let wait = async {
        loop {
            let load = engine.load();
            if (
                load.running_requests,
                load.waiting_requests,
                load.kv_blocks_active,
            ) == (0, 0, 0)
            {
                return;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    if timeout(DEADLINE, wait).await.is_err() {
        panic!("the engine keeps something: {:?}", engine.load());
    }
}

/// The info is usable.
pub async fn describes_itself(engine: &dyn Engine) {
    let info = engine.info();
    assert!(info.capabilities.contains(Capabilities::GENERATE));
    assert!(info.context_length >= 2);
    assert!(info.vocabulary_size >= 2);
    assert!(info.data_parallel_ranks >= 1);
    assert!(
        info.eos_token_ids
            .iter()
            .all(|id| *id < info.vocabulary_size)
    );
    idle(engine).await;
}

/// As many tokens as were asked for, and `Length`.
pub async fn generates_the_budget(engine: &dyn Engine) {
    for budget in [1, 2, 9] {
        let prompt = prompt(engine.info(), 1, 5);
        let answer = answer(engine, request("budget", &prompt, budget)).await;
        assert_eq!(answer.tokens.len(), budget as usize);
        assert_eq!(answer.finish, FinishReason::Length);
        assert_eq!(answer.matched_stop_token, None);
        let size = engine.info().vocabulary_size;
        assert!(answer.tokens.iter().all(|id| *id < size));
    }
    idle(engine).await;
}

/// Greedy is a function of the prompt.
pub async fn repeats_a_greedy_answer(engine: &dyn Engine) {
    let prompt = prompt(engine.info(), 2, 20);
    let first = tokens(engine, request("a", &prompt, 8)).await;
    let second = tokens(engine, request("b", &prompt, 8)).await;
    assert_eq!(first, second);
}

/// A seed and a choice index decide the draws, and both matter.
pub async fn repeats_a_seeded_answer(engine: &dyn Engine) {
    if !engine.info().capabilities.contains(Capabilities::EXACT) {
        return repeats_a_greedy_answer(engine).await;
    }
    let prompt = prompt(engine.info(), 3, 20);
    let mut answers = Vec::new();
    for (seed, choice) in [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2)] {
        let with = |id: &str| GenerateRequest {
            choice_index: choice,
            ..seeded(id, &prompt, 12, seed)
        };
        let first = tokens(engine, with("a")).await;
        assert_eq!(first, tokens(engine, with("b")).await);
        answers.push(first);
    }
    assert!(
        answers[..3].iter().any(|answer| *answer != answers[0]),
        "the seed does not matter"
    );
    assert!(
        answers[3..].iter().any(|answer| *answer != answers[0]),
        "the choice index does not matter"
    );
}

/// An answer that is taken up after any of its tokens goes on as it would have.
pub async fn resumes_after_emitted_tokens(engine: &dyn Engine) {
    let prompt = prompt(engine.info(), 4, 20);
    let exact = engine.info().capabilities.contains(Capabilities::EXACT);
    let whole = tokens(engine, seeded("whole", &prompt, 8, 7)).await;
    for emitted in 1..whole.len() {
        let resumed = GenerateRequest {
            emitted_token_ids: whole[..emitted].to_vec(),
            ..seeded("resumed", &prompt, 8, 7)
        };
        let rest = tokens(engine, resumed).await;
        assert_eq!(
            rest.len(),
            whole.len() - emitted,
            "emitted tokens count against the budget"
        );
        if exact {
            assert_eq!(rest, whole[emitted..], "after {emitted} tokens");
        }
    }
}

/// What else runs does not change an answer.
pub async fn answers_alike_in_a_crowd(engine: &dyn Engine) {
    let info = engine.info();
    let requests: Vec<GenerateRequest> = (0..6)
        .map(|i| {
            let prompt = prompt(info, 100 + i, 3 + 7 * i as usize);
            seeded(&format!("crowd-{i}"), &prompt, 10, i)
        })
        .collect();
    let together = future::join_all(requests.iter().map(|r| tokens(engine, r.clone()))).await;
    assert!(together.iter().all(|tokens| tokens.len() == 10));
    if info.capabilities.contains(Capabilities::EXACT) {
        for (request, together) in requests.into_iter().zip(together) {
            assert_eq!(tokens(engine, request).await, together);
        }
    }
    idle(engine).await;
}

/// The answer to `prompt` and the index of a token that occurs there first.
async fn with_a_first_token(engine: &dyn Engine, salt: u64) -> (Vec<TokenId>, Vec<TokenId>, usize) {
    let prompt = prompt(engine.info(), salt, 12);
    let whole = tokens(engine, request("whole", &prompt, 8)).await;
    let last_new = (0..whole.len())
        .rev()
        .find(|at| !whole[..*at].contains(&whole[*at]))
        .expect("the first token is new");
    (prompt, whole, last_new)
}

/// A stop token ends the answer, is its last token, and is named.
pub async fn stops_at_a_stop_token(engine: &dyn Engine) {
    let (prompt, whole, at) = with_a_first_token(engine, 5).await;
    let mut request = request("stop", &prompt, 8);
    request
        .stop
        .get_or_insert_default()
        .stop_token_ids
        .push(whole[at]);
    let answer = answer(engine, request).await;
    assert_eq!(answer.tokens, whole[..=at]);
    assert_eq!(answer.finish, FinishReason::Stop);
    assert_eq!(answer.matched_stop_token, Some(whole[at]));
}

/// An end-of-sequence token ends the answer, unless it is to be ignored.
pub async fn stops_at_end_of_sequence(engine: &dyn Engine) {
    let (prompt, whole, at) = with_a_first_token(engine, 6).await;
    let mut request = request("eos", &prompt, 8);
    let stop = request.stop.get_or_insert_default();
    stop.eos_token_ids.push(whole[at]);
    assert_eq!(
        tokens(engine, request.clone()).await,
        whole,
        "it was to be ignored"
    );
    request.stop.get_or_insert_default().ignore_eos = false;
    let answer = answer(engine, request).await;
    assert_eq!(answer.tokens, whole[..=at]);
    assert_eq!(answer.finish, FinishReason::Stop);
    assert_eq!(answer.matched_stop_token, None);
}

/// Nothing ends an answer before its minimum.
pub async fn keeps_the_minimum(engine: &dyn Engine) {
    let (prompt, whole, at) = with_a_first_token(engine, 7).await;
    let minimum = at + 2;
    let mut request = request("minimum", &prompt, 12);
    let stop = request.stop.get_or_insert_default();
    stop.stop_token_ids.push(whole[at]);
    stop.min_tokens = u32::try_from(minimum).expect("a small number");
    let tokens = tokens(engine, request).await;
    assert!(
        tokens.len() >= minimum,
        "{} of {minimum} tokens",
        tokens.len()
    );
    assert!(
        !tokens[..minimum].contains(&whole[at]),
        "a token that would end the answer was drawn before the minimum"
    );
}

/// Log probabilities are of the chosen token and the best ones, in order.
pub async fn reports_logprobs(engine: &dyn Engine) {
    let prompt = prompt(engine.info(), 8, 12);
    let mut request = request("logprobs", &prompt, 4);
    request.output = Some(OutputOptions { logprobs: Some(3) });
    if !engine.info().capabilities.contains(Capabilities::LOGPROBS) {
        let error = refused(engine, request).await;
        assert_eq!(error.class, ErrorClass::Unsupported);
        return;
    }
    let answer = answer(engine, request).await;
    assert_eq!(answer.logprobs.len(), 4);
    for (token, logprobs) in answer.tokens.iter().zip(&answer.logprobs) {
        assert!(logprobs.logprob <= 0.0);
        let top = &logprobs.top;
        assert_eq!(top.len(), 3.min(engine.info().vocabulary_size as usize));
        assert!(
            top.windows(2)
                .all(|pair| pair[0].logprob >= pair[1].logprob)
        );
        assert_eq!(
            (top[0].token_id, top[0].logprob),
            (*token, logprobs.logprob),
            "greedy takes the most probable token"
        );
    }
}

/// A large bias decides.
pub async fn obeys_logit_bias(engine: &dyn Engine) {
    let info = engine.info();
    let prompt = prompt(info, 9, 12);
    let favourite = prompt[0];
    let mut request = request("bias", &prompt, 3);
    request.sampling.get_or_insert_default().logit_bias = vec![LogitBias {
        token_id: favourite,
        bias: 100.0,
    }];
    if info.capabilities.contains(Capabilities::LOGIT_SHAPING) {
        assert_eq!(tokens(engine, request).await, [favourite; 3]);
    } else {
        let error = refused(engine, request).await;
        assert_eq!(error.class, ErrorClass::Unsupported);
    }
}

/// A prompt of three blocks and a bit.
fn long_prompt(info: &EngineInfo, salt: u64) -> Vec<TokenId> {
    prompt(info, salt, info.block_size.get() * 3 + 1)
}

/// The second time, a prefix is not computed, and the answer is the same.
pub async fn reuses_a_prefix(engine: &dyn Engine) {
    let info = engine.info();
    let prompt = long_prompt(info, 10);
    let first = answer(engine, request("first", &prompt, 4)).await;
    let second = answer(engine, request("second", &prompt, 4)).await;
    assert_eq!(first.tokens, second.tokens);
    assert_eq!(first.cached_tokens, 0, "nothing was there to reuse");
    if info.capabilities.contains(Capabilities::PREFIX_CACHE) {
        assert_eq!(second.cached_tokens as usize, info.block_size.get() * 3);
    } else {
        assert_eq!(second.cached_tokens, 0);
    }
}

/// Requests of different salts reuse nothing of each other.
pub async fn keeps_salts_apart(engine: &dyn Engine) {
    let prompt = long_prompt(engine.info(), 11);
    let salted = |id: &str, salt: &str| GenerateRequest {
        cache_salt: salt.to_owned(),
        ..request(id, &prompt, 4)
    };
    let bare = answer(engine, salted("bare", "")).await;
    let one = answer(engine, salted("one", "tenant-1")).await;
    let two = answer(engine, salted("two", "tenant-2")).await;
    assert_eq!((one.cached_tokens, two.cached_tokens), (0, 0));
    assert_eq!(one.tokens, bare.tokens);
    assert_eq!(two.tokens, bare.tokens);
}

/// What a subscriber knows, applied from events.
#[derive(Default)]
struct Mirror {
    next: Option<u64>,
    held: HashMap<(Tier, CacheGroup, RoutingHash), u64>,
}

impl Mirror {
    fn apply(&mut self, batch: KvEventBatch) {
        if let Some(next) = self.next {
            assert_eq!(batch.sequence, next, "a batch is missing");
        }
        self.next = Some(batch.sequence + 1);
        for event in batch.events {
            match event {
                KvEvent::Stored {
                    tier,
                    group,
                    mut parent,
                    blocks,
                } => {
                    assert!(!blocks.is_empty());
                    for block in blocks {
                        if let Some(parent) = parent {
                            assert!(
                                self.held.contains_key(&(tier, group, parent)),
                                "a block was stored whose parent is not held"
                            );
                        }
                        *self.held.entry((tier, group, block)).or_default() += 1;
                        parent = Some(block);
                    }
                }
                KvEvent::Removed {
                    tier,
                    group,
                    blocks,
                } => {
                    for block in blocks {
                        assert!(
                            self.held.remove(&(tier, group, block)).is_some(),
                            "a block was removed that was not held"
                        );
                    }
                }
                KvEvent::Cleared { tier } => self.held.retain(|(held, ..), _| *held != tier),
            }
        }
    }

    async fn until(&mut self, stream: &mut KvEventStream, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            let batch = timeout(DEADLINE, stream.next()).await;
            let batch = batch.expect("the events went silent");
            let batch = batch.expect("the events ended");
            self.apply(batch.expect("the events failed"));
        }
    }

    fn holds(&self, chain: &[RoutingHash]) -> bool {
        let held = |hash| self.held.keys().any(|(.., held)| held == hash);
        chain.iter().all(held)
    }
}

/// Events say what the cache holds: as it changes, to who comes late, and when it is cleared.
pub async fn announces_its_cache(engine: &dyn Engine) {
    let info = engine.info();
    if !info.capabilities.contains(Capabilities::KV_EVENTS) {
        let error = engine.kv_events().err().expect("kv_events must be refused");
        assert_eq!(error.class, ErrorClass::Unsupported);
        return;
    }
    let prompt = long_prompt(info, 12);
    let mut chain: Vec<RoutingHash> = Vec::new();
    for block in prompt.chunks_exact(info.block_size.get()) {
        let hash = RoutingSeed::default().block_hash(block, &[]);
        let next = chain
            .last()
            .map_or(RoutingHash::root(hash), |parent| parent.child(hash));
        chain.push(next);
    }

    let mut early = Mirror::default();
    let mut early_events = engine.kv_events().expect("kv_events is announced");
    tokens(engine, request("events", &prompt, 2)).await;
    early
        .until(&mut early_events, |mirror| mirror.holds(&chain))
        .await;

    let mut late = Mirror::default();
    let mut late_events = engine.kv_events().expect("kv_events is announced");
    late.until(&mut late_events, |mirror| mirror.holds(&chain))
        .await;
    assert!(
        late.held.keys().all(|key| early.held.contains_key(key)),
        "a snapshot holds what no event announced"
    );

    idle(engine).await;
    let cleared = engine.control(Control::ClearKvCache).await;
    cleared.expect("an engine with KV events can clear its cache");
    early
        .until(&mut early_events, |mirror| mirror.held.is_empty())
        .await;
    late.until(&mut late_events, |mirror| mirror.held.is_empty())
        .await;
}

/// A request that takes long enough to be caught running.
fn endless(engine: &dyn Engine, id: &str) -> GenerateRequest {
    let prompt = prompt(engine.info(), 13, 4);
    request(id, &prompt, engine.info().context_length - 4)
}

/// Who drops the stream has nothing running any more.
pub async fn ends_when_the_stream_is_dropped(engine: &dyn Engine) {
    drop(start(engine, endless(engine, "unread")).await);
    idle(engine).await;
    let mut stream = start(engine, endless(engine, "read")).await;
    next(&mut stream).await.expect("an output");
    drop(stream);
    idle(engine).await;
}

/// Abort ends every choice of the request, and nobody else's.
pub async fn ends_when_aborted(engine: &dyn Engine) {
    let id = RequestId::new("aborted").expect("a proper id");
    engine.abort(&id);
    // An engine may be done before it hears of the abort: then that is tried again.
    for _ in 0..100 {
        if aborts_two_choices(engine, &id).await {
            return;
        }
    }
    panic!("an abort never came in time");
}

/// Whether both choices were caught running.
async fn aborts_two_choices(engine: &dyn Engine, id: &RequestId) -> bool {
    let budget = engine.info().context_length - 4;
    let mut streams = Vec::new();
    for choice_index in [0, 1] {
        let choice = GenerateRequest {
            choice_index,
            ..endless(engine, id.as_str())
        };
        streams.push(start(engine, choice).await);
    }
    let bystander_prompt = prompt(engine.info(), 14, 4);
    let mut bystander = start(engine, request("bystander", &bystander_prompt, 16)).await;
    let mut tokens = [0, 0];
    for (stream, tokens) in streams.iter_mut().zip(&mut tokens) {
        let output = next(stream).await.expect("an output");
        *tokens += output.token_ids.len();
    }
    engine.abort(id);
    let mut caught = true;
    for (mut stream, mut tokens) in streams.into_iter().zip(tokens) {
        let mut finish = FinishReason::Unspecified;
        while let Some(output) = next(&mut stream).await {
            tokens += output.token_ids.len();
            finish = output.finish_reason();
        }
        let is_whole = tokens == budget as usize;
        if !is_whole {
            assert_eq!(finish, FinishReason::Cancelled);
        }
        caught &= !is_whole;
    }
    let answer = read(&mut bystander, Asked::plainly(4)).await;
    assert_eq!(answer.tokens.len(), 16);
    idle(engine).await;
    caught
}

/// A stop ends one choice of a request, with what it has, and nobody else's; who does not announce
/// it passes over it.
pub async fn ends_one_choice_when_stopped(engine: &dyn Engine) {
    let id = RequestId::new("stopped").expect("a proper id");
    engine.stop(&id, 0);
    // An engine may be done before it hears of the stop: then that is tried again.
    for _ in 0..100 {
        let caught = stops_the_second_choice(engine, &id).await;
        if caught || !engine.info().capabilities.contains(Capabilities::STOP) {
            return;
        }
    }
    panic!("a stop never came in time");
}

/// Whether the choice was caught running.
async fn stops_the_second_choice(engine: &dyn Engine, id: &RequestId) -> bool {
    let budget = (engine.info().context_length - 4) as usize;
    let choice = |choice_index| GenerateRequest {
        choice_index,
        ..endless(engine, id.as_str())
    };
    let mut first = start(engine, choice(0)).await;
    let mut second = start(engine, choice(1)).await;
    let mut tokens = next(&mut second).await.expect("an output").token_ids;
    engine.stop(id, 1);
    let mut finish = FinishReason::Unspecified;
    while let Some(output) = next(&mut second).await {
        finish = output.finish_reason();
        tokens.extend(output.token_ids);
    }
    let is_caught = finish == FinishReason::Enough;
    if !is_caught {
        assert_eq!((finish, tokens.len()), (FinishReason::Length, budget));
    }
    let mut others = Vec::new();
    while others.len() <= tokens.len().min(budget - 1) {
        let output = next(&mut first).await.expect("the other choice goes on");
        others.extend(output.token_ids);
    }
    assert!(others.starts_with(&tokens), "what came before it stays");
    drop(first);
    idle(engine).await;
    is_caught
}

/// A prompt that fills the context is refused by the name of the limit.
pub async fn refuses_a_prompt_without_room(engine: &dyn Engine) {
    let info = engine.info();
    let prompt = prompt(info, 15, info.context_length as usize);
    let error = refused(engine, request("long", &prompt, 1)).await;
    assert_eq!(error.class, ErrorClass::InvalidRequest);
    assert_eq!(error.reason, "context_length_exceeded");
    idle(engine).await;
}

/// What is out of range is refused with its field.
pub async fn refuses_what_is_malformed(engine: &dyn Engine) {
    let good = prompt(engine.info(), 16, 4);
    let mut beyond = good.clone();
    beyond.push(engine.info().vocabulary_size);
    let mut zero_budget = request("bad", &good, 1);
    zero_budget.stop.get_or_insert_default().max_tokens = Some(0);
    let mut hot = request("bad", &good, 1);
    hot.sampling.get_or_insert_default().temperature = Some(f32::NAN);
    let cases = [
        (request("bad", &[], 1), "prompt_token_ids"),
        (request("bad", &beyond, 1), "prompt_token_ids"),
        (request("", &good, 1), "request_id"),
        (zero_budget, "stop.max_tokens"),
        (hot, "sampling.temperature"),
    ];
    for (request, field) in cases {
        let error = refused(engine, request).await;
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{error:?}");
        assert_eq!(error.param.as_deref(), Some(field), "{error:?}");
    }
    idle(engine).await;
}

/// Two running streams of one request and choice would be one name for two things.
pub async fn refuses_a_name_twice(engine: &dyn Engine) {
    let running = start(engine, endless(engine, "name")).await;
    let error = refused(engine, endless(engine, "name")).await;
    assert_eq!(error.class, ErrorClass::Conflict);
    drop(running);
    idle(engine).await;
    let prompt = prompt(engine.info(), 17, 4);
    tokens(engine, request("name", &prompt, 1)).await;
}

/// Operations and fields beyond the capabilities are refused by name.
pub async fn refuses_what_it_lacks(engine: &dyn Engine) {
    let can = engine.info().capabilities;
    let check = |capability, refused: Option<Error>| {
        if !can.contains(capability) {
            let error = refused.unwrap_or_else(|| panic!("{capability:?} must be refused"));
            assert_eq!(error.class, ErrorClass::Unsupported, "{error:?}");
        }
    };
    check(
        Capabilities::EMBED,
        engine.embed(EmbedRequest::default()).await.err(),
    );
    check(
        Capabilities::SCORE,
        engine.score(ScoreRequest::default()).await.err(),
    );
    check(
        Capabilities::ENCODE,
        engine.encode(EncodeRequest::default()).await.err(),
    );
    check(
        Capabilities::MEDIA,
        engine.media(MediaRequest::default()).await.err(),
    );
    let prompt = prompt(engine.info(), 18, 4);
    let lora = GenerateRequest {
        lora: "adapter".to_owned(),
        ..request("lora", &prompt, 1)
    };
    check(Capabilities::LORA, engine.generate(lora).await.err());
    let image = GenerateRequest {
        features: vec![Default::default()],
        ..request("image", &prompt, 1)
    };
    check(Capabilities::MULTIMODAL, engine.generate(image).await.err());
    idle(engine).await;
}

/// A paused engine accepts and runs nothing; resumed, it runs what it accepted.
pub async fn pauses_and_resumes(engine: &dyn Engine) {
    if !engine.info().capabilities.contains(Capabilities::PAUSE) {
        let error = engine.control(Control::Pause).await.err();
        let error = error.expect("pause must be refused");
        assert_eq!(error.class, ErrorClass::Unsupported);
        return;
    }
    engine.control(Control::Pause).await.expect("it can pause");
    let prompt = prompt(engine.info(), 19, 4);
    let mut stream = start(engine, request("paused", &prompt, 3)).await;
    let early = timeout(Duration::from_millis(50), stream.next()).await;
    assert!(early.is_err(), "a paused engine ran");
    engine
        .control(Control::Resume)
        .await
        .expect("it can resume");
    assert_eq!(read(&mut stream, Asked::plainly(4)).await.tokens.len(), 3);
    idle(engine).await;
}
