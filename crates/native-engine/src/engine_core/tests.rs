use std::io::Cursor;
use std::sync::LazyLock;

use forebay_protocols::worker::{
    LogitBias, OutputOptions, SamplingParams as SamplingMessage, StopConditions,
};
use forebay_tokens::RoutingHash;
use proptest::prelude::*;

use super::*;
use crate::{ModelShape, random_gguf};

const CONTEXT: usize = 192;

/// Large enough a vocabulary for the colliding blocks.
static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let shape = ModelShape {
        vocabulary: 1_300,
        context_length: CONTEXT,
        layers: 2,
        hidden: 96,
        feed_forward: 160,
        heads: 3,
        kv_heads: 1,
        head_dim: 32,
    };
    Arc::new(Model::from_gguf(Cursor::new(random_gguf(&shape, 5))).unwrap())
});

/// 32 blocks, and chunks that cut every prompt here.
fn config() -> EngineConfig {
    EngineConfig {
        kv_cache_bytes: pool_bytes(32),
        max_batch_tokens: 64,
        max_chunk_tokens: 48,
        max_sequences: 8,
        max_waiting: 16,
        ..EngineConfig::default()
    }
}

fn pool_bytes(blocks: usize) -> u64 {
    let layout = MODEL.kv_layout(BlockSize::new(16).unwrap());
    (layout.bytes_per_block() * blocks) as u64
}

fn core_of(config: &EngineConfig) -> EngineCore {
    EngineCore::new(config, MODEL.clone(), ContentKey::new([7; 32])).unwrap()
}

fn core() -> EngineCore {
    core_of(&config())
}

fn prompt(length: usize, salt: u32) -> Vec<TokenId> {
    (0..length as u32)
        .map(|i| (i * 7_919 + salt * 104_729 + i / 7) % 1_250)
        .collect()
}

/// A seeded request whose every draw matters, with all that depends on what came before.
fn request(name: &str, prompt: Vec<TokenId>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: name.to_owned(),
        prompt_token_ids: prompt,
        sampling: Some(SamplingMessage {
            temperature: Some(0.9),
            top_p: Some(0.95),
            top_k: 200,
            repetition_penalty: Some(1.1),
            presence_penalty: 0.3,
            frequency_penalty: 0.2,
            seed: 11,
            ..Default::default()
        }),
        stop: Some(StopConditions {
            max_tokens: Some(max_tokens),
            ..Default::default()
        }),
        output: Some(OutputOptions { logprobs: Some(2) }),
        ..Default::default()
    }
}

fn greedy(name: &str, prompt: Vec<TokenId>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        sampling: Some(SamplingMessage {
            temperature: Some(0.0),
            ..Default::default()
        }),
        ..request(name, prompt, max_tokens)
    }
}

/// All that can be seen of a choice.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    output: GenerateOutput,
    /// The bits of each row of logits that a token was drawn from.
    rows: Vec<Vec<u32>>,
}

impl Answer {
    fn cached_tokens(&self) -> u32 {
        self.output.prompt.unwrap().cached_tokens
    }

    /// What must not depend on the cache.
    fn content(&self) -> (&[TokenId], &[Vec<u32>]) {
        (&self.output.token_ids, &self.rows)
    }
}

/// Runs requests that are submitted together, and counts preemptions.
fn run_counting(core: &mut EngineCore, requests: Vec<GenerateRequest>) -> (Vec<Answer>, usize) {
    let ids: Vec<_> = requests
        .into_iter()
        .map(|request| core.submit(request).unwrap())
        .collect();
    let mut answers = vec![Answer::default(); ids.len()];
    let index = |id| ids.iter().position(|other| *other == id).unwrap();
    let mut preempted = 0;
    while core.is_runnable() {
        let report = core.step_observed(&mut |id, row| {
            let bits = row.iter().map(|logit| logit.to_bits()).collect();
            answers[index(id)].rows.push(bits);
        });
        assert!(report.computed_tokens > 0, "the engine is stuck");
        preempted += report.preempted;
        for (id, output) in report.outputs {
            let (output, answer) = (output.unwrap(), &mut answers[index(id)].output);
            assert_eq!(answer.finish_reason(), FinishReason::Unspecified);
            assert_eq!(output.prompt.is_some(), answer.prompt.is_none());
            answer.prompt = answer.prompt.or(output.prompt);
            answer.token_ids.extend(output.token_ids);
            answer.logprobs.extend(output.logprobs);
            answer.finish_reason = output.finish_reason;
            answer.matched_stop_token = output.matched_stop_token;
        }
    }
    let load = core.load();
    assert_eq!((load.running_requests, load.kv_blocks_active), (0, 0));
    (answers, preempted)
}

fn run(core: &mut EngineCore, requests: Vec<GenerateRequest>) -> Vec<Answer> {
    run_counting(core, requests).0
}

fn run_one(core: &mut EngineCore, request: GenerateRequest) -> Answer {
    run(core, vec![request]).remove(0)
}

/// Six requests of different lengths, two of them with a common prefix.
fn crowd() -> Vec<GenerateRequest> {
    [3, 17, 60, 61, 33, 90]
        .into_iter()
        .enumerate()
        .map(|(i, length)| {
            let salt = if (60..62).contains(&length) {
                9
            } else {
                i as u32
            };
            let name = format!("crowd-{i}");
            if i % 2 == 0 {
                request(&name, prompt(length, salt), 20)
            } else {
                greedy(&name, prompt(length, salt), 20)
            }
        })
        .collect()
}

/// What each of the crowd gets in an engine of its own.
static ALONE: LazyLock<Vec<Answer>> = LazyLock::new(|| {
    let requests = crowd().into_iter();
    requests
        .map(|request| run_one(&mut core(), request))
        .collect()
});

fn assert_same(got: &[Answer], expected: &[Answer], what: &str) {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(
            got.output.token_ids, expected.output.token_ids,
            "{what}: tokens of {i}"
        );
        assert_eq!(got.output.logprobs, expected.output.logprobs);
        assert!(got.rows == expected.rows, "{what}: logits of {i}");
    }
}

#[test]
fn a_choice_does_not_depend_on_what_runs_beside_it() {
    let together = run(&mut core(), crowd());
    assert_same(&together, &ALONE, "together");
}

#[test]
fn a_choice_does_not_depend_on_how_its_prompt_is_cut() {
    for (chunk, batch) in [(1, 8), (7, 16), (16, 33), (64, 64), (512, 512)] {
        let mut core = core_of(&EngineConfig {
            max_chunk_tokens: chunk,
            max_batch_tokens: batch,
            ..config()
        });
        assert_same(
            &run(&mut core, crowd()),
            &ALONE,
            &format!("chunks of {chunk}"),
        );
    }
}

#[test]
fn a_choice_does_not_depend_on_block_size_or_threads() {
    for (block_size_tokens, threads) in [(1, 1), (5, 2), (32, 1)] {
        let mut core = core_of(&EngineConfig {
            block_size_tokens,
            threads: std::num::NonZeroUsize::new(threads),
            ..config()
        });
        assert_same(&run(&mut core, crowd()), &ALONE, "another layout");
    }
}

#[test]
fn a_choice_does_not_depend_on_the_cache_and_says_what_it_took() {
    let mut core = core();
    run(&mut core, crowd());
    let again = run(&mut core, crowd());
    assert_same(&again, &ALONE, "cached");
    for (request, answer) in crowd().iter().zip(&again) {
        // All full blocks before the last token.
        let expected = (request.prompt_token_ids.len() - 1) / 16 * 16;
        assert_eq!(answer.cached_tokens() as usize, expected);
    }
    core.clear_kv_cache();
    let anew = run_one(&mut core, crowd().remove(5));
    assert_eq!(anew, ALONE[5], "nothing of a cleared cache is used");
    assert_eq!(anew.cached_tokens(), 0);
}

#[test]
fn a_choice_does_not_depend_on_preemption() {
    // Each begins with one block and ends with six.
    let growing = || (0..5).map(|i| request(&format!("growing-{i}"), prompt(10, i), 80));
    let alone: Vec<_> = growing().map(|r| run_one(&mut core(), r)).collect();
    let mut core = core_of(&EngineConfig {
        kv_cache_bytes: pool_bytes(12),
        ..config()
    });
    let (answers, preempted) = run_counting(&mut core, growing().collect());
    assert!(preempted > 0, "twelve blocks are too few for thirty");
    assert_same(&answers, &alone, "preempted");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Requests come, go and come again at any time, in an engine of any size.
    #[test]
    fn a_choice_does_not_depend_on_anything_that_happens(
        blocks in 8..24_usize,
        chunk in 1..70_usize,
        batch in 8..100_usize,
        // Before each step: submit this one of the crowd, if it is not running; abort that one.
        schedule in prop::collection::vec((0..12_usize, 0..30_usize), 10..60),
    ) {
        let mut core = core_of(&EngineConfig {
            kv_cache_bytes: pool_bytes(blocks),
            max_chunk_tokens: chunk,
            max_batch_tokens: batch,
            ..config()
        });
        let mut running: Vec<Option<(SequenceId, Answer)>> = vec![None; 6];
        let mut schedule = schedule.into_iter();
        loop {
            match schedule.next() {
                Some((submitted, aborted)) => {
                    if let Some(slot @ None) = running.get_mut(submitted) {
                        let id = core.submit(crowd().remove(submitted)).unwrap();
                        *slot = Some((id, Answer::default()));
                    }
                    if let Some((id, _)) = running.get_mut(aborted).and_then(Option::take) {
                        prop_assert!(core.abort(id).is_some());
                    }
                }
                None if !core.is_runnable() => break,
                None => (),
            }
            let mut rows = FxHashMap::default();
            let report = core.step_observed(&mut |id, row| {
                rows.insert(id, row.iter().map(|l| l.to_bits()).collect::<Vec<_>>());
            });
            for (id, output) in report.outputs {
                let output = output.unwrap();
                let index = running.iter().position(|r| r.as_ref().is_some_and(|r| r.0 == id));
                let index = index.unwrap();
                let (_, answer) = running[index].as_mut().unwrap();
                answer.rows.push(rows.remove(&id).unwrap());
                answer.output.token_ids.extend(&output.token_ids);
                if output.finish_reason() != FinishReason::Unspecified {
                    prop_assert!(answer.content() == ALONE[index].content());
                    running[index] = None;
                }
            }
        }
        prop_assert!(running.iter().all(Option::is_none), "nothing is left behind");
        prop_assert_eq!(core.load().kv_blocks_active, 0);
        prop_assert!(core.choices.is_empty() && core.by_name.is_empty());
    }
}

#[test]
fn a_choice_goes_on_elsewhere_after_any_of_its_tokens() {
    for (request, whole) in crowd().iter().zip(&*ALONE).take(3) {
        let tokens = &whole.output.token_ids;
        for at in 0..tokens.len() {
            let resumed = GenerateRequest {
                emitted_token_ids: tokens[..at].to_vec(),
                ..request.clone()
            };
            let rest = run_one(&mut core(), resumed);
            assert_eq!(rest.output.token_ids, tokens[at..], "after {at} tokens");
            assert_eq!(rest.output.logprobs, whole.output.logprobs[at..]);
            assert!(rest.rows == whole.rows[at..], "logits after {at} tokens");
            assert_eq!(rest.output.finish_reason, whole.output.finish_reason);
            let prompt_tokens = rest.output.prompt.unwrap().prompt_tokens as usize;
            assert_eq!(prompt_tokens, request.prompt_token_ids.len());
        }
        let over = GenerateRequest {
            emitted_token_ids: tokens.clone(),
            ..request.clone()
        };
        let error = core().submit(over).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("stop.max_tokens"));
    }
}

/// Two blocks with one public hash: a router takes them for the same, the engine must not.
#[test]
fn colliding_prompts_are_served_their_own_kv() {
    let colliding = [
        [
            1009, 1029, 1032, 1056, 1077, 1092, 1109, 1117, 1136, 1148, 1160, 1189, 1195, 1214,
            1236, 1252,
        ],
        [
            1002, 1028, 1038, 1050, 1064, 1091, 1098, 1120, 1135, 1155, 1160, 1185, 1206, 1217,
            1236, 1254,
        ],
    ];
    let prompts = colliding.map(|block| [&block[..], &[5, 6, 7]].concat());
    let mut core = core();
    let identities = prompts.clone().map(|p| core.chain(&p, "").identities()[0]);
    assert_eq!(identities[0].routing, RoutingHash(0x075a_004c_1779_538c));
    assert_eq!(identities[0].routing, identities[1].routing);
    assert_ne!(identities[0].content, identities[1].content);

    let fresh = prompts
        .clone()
        .map(|p| run_one(&mut self::core(), request("fresh", p, 10)));
    assert_ne!(fresh[0].rows, fresh[1].rows);
    for round in 0..2 {
        for (prompt, fresh) in prompts.iter().zip(&fresh) {
            let answer = run_one(&mut core, request("shared", prompt.clone(), 10));
            assert!(answer.content() == fresh.content(), "round {round}");
            assert_eq!(answer.cached_tokens(), 16 * round, "each block is its own");
        }
    }
}

#[test]
fn salts_share_nothing() {
    let mut core = core();
    let salted = |salt: &str| GenerateRequest {
        cache_salt: salt.to_owned(),
        ..request("salted", prompt(50, 1), 3)
    };
    for (salt, cached) in [("", 0), ("a", 0), ("b", 0), ("a", 48), ("", 48)] {
        let answer = run_one(&mut core, salted(salt));
        assert_eq!(answer.cached_tokens(), cached, "salt {salt:?}");
    }
}

#[test]
fn blocks_that_were_exported_give_the_same_bits_where_they_are_imported() {
    let tokens = prompt(61, 9);
    let asked = || request("moved", tokens.clone(), 12);
    let mut source = core();
    let expected = run_one(&mut source, asked());
    let blocks = source.export_prefix(&tokens, "");
    assert_eq!(blocks.len(), 3);
    assert_eq!(source.export_prefix(&tokens[..47], "").len(), 2);
    assert_eq!(source.export_prefix(&tokens, "another salt"), []);

    // Where they end up in other physical blocks.
    let mut target = core();
    run(&mut target, vec![request("before", prompt(40, 77), 5)]);
    assert_eq!(target.import_prefix(&tokens, "", &blocks[..1]).unwrap(), 1);
    assert_eq!(target.import_prefix(&tokens, "", &blocks).unwrap(), 2);
    assert_eq!(target.import_prefix(&tokens, "", &blocks).unwrap(), 0);
    let moved = run_one(&mut target, asked());
    assert_eq!(moved.cached_tokens(), 48);
    assert!(moved.content() == expected.content());
}

#[test]
fn blocks_of_something_else_are_refused() {
    let tokens = prompt(61, 9);
    let mut source = core();
    run_one(&mut source, request("source", tokens.clone(), 1));
    let blocks = source.export_prefix(&tokens, "");

    let mut target = core();
    let mut other_tokens = tokens.clone();
    other_tokens[20] += 1;
    let mut short = blocks.clone();
    short[1].bytes.pop();
    let swapped = [blocks[1].clone(), blocks[0].clone()];
    let cases: [(&[TokenId], &str, &[KvBlock]); 5] = [
        (&other_tokens, "", &blocks),
        (&tokens, "salt", &blocks),
        (&tokens[..40], "", &blocks),
        (&tokens, "", &short),
        (&tokens, "", &swapped),
    ];
    for (tokens, salt, blocks) in cases {
        let error = target.import_prefix(tokens, salt, blocks).unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{error:?}");
        assert_eq!(target.load().kv_blocks_cached, 0, "nothing has changed");
    }
    let other_key = ContentKey::new([8; 32]);
    let mut stranger = EngineCore::new(&config(), MODEL.clone(), other_key).unwrap();
    let error = stranger.import_prefix(&tokens, "", &blocks).unwrap_err();
    assert_eq!(error.reason, "kv_content_mismatch");

    let mut full = core_of(&EngineConfig {
        kv_cache_bytes: pool_bytes(2),
        ..config()
    });
    let error = full.import_prefix(&tokens, "", &blocks).unwrap_err();
    assert_eq!(error.class, ErrorClass::CapacityExhausted);
    assert_eq!(full.load().kv_blocks_active, 0);
}

#[test]
fn what_cannot_be_served_is_refused_with_its_reason() {
    let base = || request("refused", prompt(8, 0), 4);
    let with = |change: &dyn Fn(&mut GenerateRequest)| {
        let mut request = base();
        change(&mut request);
        request
    };
    let stop = |change: &dyn Fn(&mut StopConditions)| {
        with(&|request| change(request.stop.as_mut().unwrap()))
    };
    use ErrorClass::{InvalidRequest, Unsupported};
    let cases = [
        (
            with(&|r| r.request_id = "a b".into()),
            InvalidRequest,
            "request_id",
        ),
        (
            with(&|r| r.prompt_token_ids.clear()),
            InvalidRequest,
            "prompt_token_ids",
        ),
        (
            with(&|r| r.prompt_token_ids[3] = 1_300),
            InvalidRequest,
            "prompt_token_ids",
        ),
        (
            with(&|r| r.emitted_token_ids = vec![1_300]),
            InvalidRequest,
            "emitted_token_ids",
        ),
        (
            with(&|r| r.emitted_token_ids = vec![1; 4]),
            InvalidRequest,
            "stop.max_tokens",
        ),
        (
            stop(&|s| s.max_tokens = Some(0)),
            InvalidRequest,
            "stop.max_tokens",
        ),
        (
            stop(&|s| s.min_tokens = 5),
            InvalidRequest,
            "stop.min_tokens",
        ),
        (
            stop(&|s| s.stop_token_ids = vec![1_300]),
            InvalidRequest,
            "stop.stop_token_ids",
        ),
        (
            stop(&|s| s.eos_token_ids = vec![1_300]),
            InvalidRequest,
            "stop.eos_token_ids",
        ),
        (
            with(&|r| r.output = Some(OutputOptions { logprobs: Some(21) })),
            InvalidRequest,
            "output.logprobs",
        ),
        (
            with(&|r| r.sampling.as_mut().unwrap().top_p = Some(0.0)),
            InvalidRequest,
            "sampling.top_p",
        ),
        (with(&|r| r.lora = "adapter".into()), Unsupported, "lora"),
        (
            with(&|r| r.features = vec![Default::default()]),
            Unsupported,
            "features",
        ),
    ];
    let mut core = core();
    for (request, class, field) in cases {
        let error = core.submit(request).unwrap_err();
        assert_eq!(error.class, class, "{error:?}");
        assert_eq!(error.param.as_deref(), Some(field), "{error:?}");
    }
    for (prompt_tokens, emitted) in [(CONTEXT, 0), (CONTEXT - 3, 3)] {
        let request = GenerateRequest {
            emitted_token_ids: vec![1; emitted],
            ..request("long", prompt(prompt_tokens, 0), 100)
        };
        let error = core.submit(request).unwrap_err();
        assert_eq!(error.reason, "context_length_exceeded");
    }
    assert!(!core.is_runnable(), "nothing of all that was accepted");
}

#[test]
fn a_request_that_never_fits_is_refused_by_numbers() {
    let mut core = core_of(&EngineConfig {
        kv_cache_bytes: pool_bytes(4),
        ..config()
    });
    // 64 tokens of KV and the last token, which needs none.
    let fits = request("fits", prompt(60, 1), 5);
    let error = core.submit(request("never", prompt(60, 1), 6)).unwrap_err();
    assert_eq!(error.class, ErrorClass::TooLarge);
    assert!(error.message.contains("needs 5 KV blocks"), "{error}");
    assert!(error.message.contains("the engine has 4"), "{error}");
    assert_eq!(run_one(&mut core, fits).output.token_ids.len(), 5);

    // Without a budget it gets what there is room for.
    let mut open = request("open", prompt(60, 1), 1);
    open.stop.as_mut().unwrap().max_tokens = None;
    let answer = run_one(&mut core, open.clone());
    assert_eq!(answer.output.token_ids.len(), 5);
    assert_eq!(answer.output.finish_reason(), FinishReason::Length);
    open.prompt_token_ids = prompt(65, 1);
    assert_eq!(core.submit(open).unwrap_err().class, ErrorClass::TooLarge);
}

#[test]
fn the_context_ends_an_answer_that_asked_for_more() {
    let answer = run_one(&mut core(), request("long", prompt(CONTEXT - 3, 1), 100));
    assert_eq!(answer.output.token_ids.len(), 3);
    assert_eq!(answer.output.finish_reason(), FinishReason::Length);
}

#[test]
fn a_full_queue_refuses_until_there_is_room() {
    let mut core = core_of(&EngineConfig {
        max_waiting: 2,
        ..config()
    });
    core.submit(request("a", prompt(4, 0), 2)).unwrap();
    core.submit(request("b", prompt(4, 0), 2)).unwrap();
    let error = core.submit(request("c", prompt(4, 0), 2)).unwrap_err();
    assert_eq!(error.class, ErrorClass::CapacityExhausted);
    assert!(error.retry_after.is_some());
    core.step();
    core.submit(request("c", prompt(4, 0), 2)).unwrap();
}

#[test]
fn a_name_is_of_one_choice_at_a_time() {
    let mut core = core();
    let named = |choice_index| GenerateRequest {
        choice_index,
        ..request("name", prompt(4, 0), 2)
    };
    let first = core.submit(named(0)).unwrap();
    core.submit(named(1)).unwrap();
    let error = core.submit(named(0)).unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
    core.abort(first).unwrap();
    core.submit(named(0)).unwrap();
}

#[test]
fn an_aborted_choice_is_cancelled_and_leaves_nothing() {
    let mut core = core();
    let waiting = core.submit(request("waiting", prompt(20, 0), 50)).unwrap();
    let last = core.abort(waiting).unwrap();
    assert_eq!(last.finish_reason(), FinishReason::Cancelled);
    assert_eq!(last.prompt.unwrap().prompt_tokens, 20);

    let running = core.submit(request("running", prompt(20, 0), 50)).unwrap();
    core.step();
    assert!(core.load().kv_blocks_active > 0);
    let last = core.abort(running).unwrap();
    assert_eq!(last.finish_reason(), FinishReason::Cancelled);
    assert_eq!(last.prompt, None, "the first output had it");
    assert!(core.abort(running).is_none());
    assert_eq!(core.load().kv_blocks_active, 0);
    assert!(!core.is_runnable());
}

#[test]
fn lower_priority_goes_first() {
    let mut core = core_of(&EngineConfig {
        max_sequences: 1,
        ..config()
    });
    let ids = [0, 5, -5].map(|priority| {
        let request = GenerateRequest {
            priority,
            ..request(&format!("priority{priority}"), prompt(4, 0), 1)
        };
        core.submit(request).unwrap()
    });
    let mut order = Vec::new();
    while core.is_runnable() {
        order.extend(core.step().outputs.into_iter().map(|(id, _)| id));
    }
    assert_eq!(order, [ids[2], ids[0], ids[1]]);
}

#[test]
fn a_paused_engine_accepts_and_does_nothing() {
    let mut core = core();
    core.pause();
    core.submit(request("paused", prompt(4, 0), 2)).unwrap();
    assert!(!core.is_runnable());
    assert_eq!(core.step().computed_tokens, 0);
    core.resume();
    assert_eq!(core.step().outputs.len(), 1);
}

#[test]
fn a_stop_token_is_the_last_one_and_waits_for_the_minimum() {
    let whole = run_one(&mut core(), greedy("whole", prompt(20, 3), 12)).output;
    let ending = whole.token_ids[2];
    let mut asked = greedy("stop", prompt(20, 3), 12);
    asked.stop.as_mut().unwrap().stop_token_ids = vec![ending];
    let stopped = run_one(&mut core(), asked.clone()).output;
    let first = whole.token_ids.iter().position(|t| *t == ending).unwrap();
    assert_eq!(stopped.token_ids, whole.token_ids[..=first]);
    assert_eq!(stopped.finish_reason(), FinishReason::Stop);
    assert_eq!(stopped.matched_stop_token, Some(ending));

    // A large bias makes it the token at every position where it is allowed.
    asked.sampling.as_mut().unwrap().logit_bias = vec![LogitBias {
        token_id: ending,
        bias: 100.0,
    }];
    asked.stop.as_mut().unwrap().min_tokens = 4;
    let delayed = run_one(&mut core(), asked).output;
    assert_eq!(delayed.token_ids.len(), 5);
    assert_eq!(delayed.token_ids[4], ending);
    assert!(!delayed.token_ids[..4].contains(&ending));
}

#[test]
fn a_choice_that_may_not_have_any_token_fails_alone() {
    let mut core = core();
    let mut hopeless = request("hopeless", prompt(20, 0), 5);
    let stop = hopeless.stop.as_mut().unwrap();
    stop.stop_token_ids = (0..1_300).collect();
    stop.min_tokens = 1;
    let hopeless = core.submit(hopeless).unwrap();
    let fine = core.submit(greedy("fine", prompt(20, 1), 5)).unwrap();
    let (mut failed, mut tokens) = (None, 0);
    while core.is_runnable() {
        for (id, output) in core.step().outputs {
            match output {
                Ok(output) if id == fine => tokens += output.token_ids.len(),
                Err(error) if id == hopeless => failed = Some(error),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(failed.unwrap().param.as_deref(), Some("stop.min_tokens"));
    assert_eq!(tokens, 5);
    assert_eq!(core.load().kv_blocks_active, 0);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let start = |config: &EngineConfig| {
        EngineCore::new(config, MODEL.clone(), ContentKey::new([7; 32])).err()
    };
    let with = |change: &dyn Fn(&mut EngineConfig)| {
        let mut config = config();
        change(&mut config);
        start(&config).unwrap()
    };
    assert!(start(&config()).is_none());
    assert!(matches!(
        with(&|c| c.block_size_tokens = 0),
        StartError::BlockSize(_)
    ));
    for bytes in [0, pool_bytes(1) - 1, u64::MAX] {
        assert!(matches!(
            with(&|c| c.kv_cache_bytes = bytes),
            StartError::KvCacheBytes { .. }
        ));
    }
    assert!(matches!(
        with(&|c| c.max_batch_tokens = 7),
        StartError::Scheduler(_)
    ));
}

#[test]
fn the_context_is_what_the_kv_blocks_can_hold() {
    let of_blocks = |blocks| {
        core_of(&EngineConfig {
            kv_cache_bytes: pool_bytes(blocks),
            ..config()
        })
    };
    let of_model = MODEL.shape().context_length;
    assert_eq!(of_blocks(of_model).context_length(), of_model);
    let mut small = of_blocks(3);
    // The last token needs no KV.
    let context = 3 * small.block_size().get() + 1;
    assert_eq!(small.context_length(), context);
    let whole = request("whole", prompt(5, 0), context as u32 - 5);
    let answer = run_one(&mut small, whole).output;
    assert_eq!(answer.token_ids.len(), context - 5);
}
