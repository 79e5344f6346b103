use forebay_tokens::BlockSize;

use super::*;
use crate::ErrorClass;
use crate::worker::StopConditions;

fn limits() -> RequestLimits {
    RequestLimits {
        vocabulary_size: 100,
        context_length: 50,
        kv_blocks: 10,
        block_size: BlockSize::new(4).unwrap(),
    }
}

fn request(prompt: u32, max_tokens: Option<u32>) -> GenerateRequest {
    GenerateRequest {
        request_id: "a".into(),
        prompt_token_ids: (0..prompt).collect(),
        stop: Some(StopConditions {
            max_tokens,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn budget(request: GenerateRequest) -> Result<usize, Error> {
    CheckedRequest::check(request, &limits()).map(|checked| checked.max_tokens)
}

#[test]
fn a_budget_is_what_was_asked_for_and_fits() {
    assert_eq!(budget(request(5, Some(7))), Ok(7));
    // 40 tokens have KV, and the last one needs none.
    assert_eq!(budget(request(5, None)), Ok(36));
    let small = RequestLimits {
        context_length: 20,
        ..limits()
    };
    let within = |max_tokens| {
        CheckedRequest::check(request(5, max_tokens), &small).map(|checked| checked.max_tokens)
    };
    assert_eq!((within(None), within(Some(100))), (Ok(15), Ok(15)));
}

#[test]
fn what_has_no_room_is_refused_by_the_limit_it_meets() {
    let error = budget(request(50, Some(1))).unwrap_err();
    assert_eq!(error.class, ErrorClass::InvalidRequest);
    assert_eq!(error.reason, "context_length_exceeded");
    let error = budget(request(41, Some(1))).unwrap_err();
    assert_eq!(error.class, ErrorClass::TooLarge);
    assert_eq!(error.reason, "kv_cache_exceeded");
    let resumed = GenerateRequest {
        emitted_token_ids: vec![1, 2, 3],
        ..request(5, Some(3))
    };
    let error = budget(resumed).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("stop.max_tokens"));
}

#[test]
fn what_is_out_of_range_is_named() {
    let stop = |change: fn(&mut StopConditions)| {
        let mut request = request(5, Some(7));
        change(request.stop.as_mut().unwrap());
        request
    };
    let mut no_id = request(5, None);
    no_id.request_id.clear();
    let mut emitted = request(5, None);
    emitted.emitted_token_ids.push(100);
    let mut prompt = request(5, None);
    prompt.prompt_token_ids[2] = u32::MAX;
    let mut logprobs = request(5, None);
    logprobs.output = Some(OutputOptions { logprobs: Some(21) });
    let cases = [
        (no_id, "request_id"),
        (request(0, None), "prompt_token_ids"),
        (prompt, "prompt_token_ids"),
        (emitted, "emitted_token_ids"),
        (request(5, Some(0)), "stop.max_tokens"),
        (stop(|stop| stop.min_tokens = 8), "stop.min_tokens"),
        (
            stop(|stop| stop.stop_token_ids.push(100)),
            "stop.stop_token_ids",
        ),
        (
            stop(|stop| stop.eos_token_ids.push(100)),
            "stop.eos_token_ids",
        ),
        (logprobs, "output.logprobs"),
    ];
    for (request, field) in cases {
        let error = budget(request).unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{error:?}");
        assert_eq!(error.param.as_deref(), Some(field), "{error:?}");
    }
}

#[test]
fn stop_rules_tell_the_models_tokens_from_the_clients() {
    let rules = |ignore_eos| {
        let mut request = request(5, Some(9));
        request.stop = Some(StopConditions {
            max_tokens: Some(9),
            min_tokens: 2,
            stop_token_ids: vec![7],
            eos_token_ids: vec![8],
            ignore_eos,
        });
        CheckedRequest::check(request, &limits()).unwrap().stop
    };
    let both = rules(false);
    assert_eq!((both.banned(1), both.banned(2)), (&[7, 8][..], &[][..]));
    assert_eq!(both.end_of_sequence(), [8]);
    assert!(both.ends(7) && both.ends(8) && !both.ends(9));
    assert_eq!((both.matched(7), both.matched(8)), (Some(7), None));
    let ignoring = rules(true);
    assert!(ignoring.end_of_sequence().is_empty() && !ignoring.ends(8));
}
