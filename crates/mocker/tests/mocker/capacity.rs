use forebay_mocker::MockerConfig;
use forebay_protocols::ErrorClass;
use forebay_protocols::worker::{FinishReason, GenerateRequest};

use crate::driver::{Driver, config, request};

#[test]
fn a_prefix_is_reused_and_said_to_be() {
    let mut driver = Driver::new(&config());
    let prompt: Vec<_> = (0..21).collect();
    let first = driver.answer(request("a", &prompt, 4));
    let second = driver.answer(request("b", &prompt, 4));
    assert_eq!((first.cached_tokens, second.cached_tokens), (0, 20));
    assert_eq!(first.tokens, second.tokens);
    let salted = GenerateRequest {
        cache_salt: "tenant".into(),
        ..request("c", &prompt, 4)
    };
    assert_eq!(driver.answer(salted).cached_tokens, 0);
    driver.mocker.clear_kv_cache();
    assert_eq!(driver.answer(request("d", &prompt, 4)).cached_tokens, 0);
    driver.assert_idle();
}

#[test]
fn lower_priorities_go_first() {
    let mut driver = Driver::new(&MockerConfig {
        max_sequences: 1,
        ..config()
    });
    driver.submit(request("running", &[1; 5], 3)).unwrap();
    driver.step();
    let mut ids = Vec::new();
    for (name, priority) in [("later", 1), ("usual", 0), ("urgent", -1)] {
        let asked = GenerateRequest {
            priority,
            ..request(name, &[2; 5], 1)
        };
        ids.push(driver.submit(asked).unwrap());
    }
    driver.run();
    let at = |i: usize| driver.heard[&ids[i]].at[0];
    assert!(at(2) < at(1) && at(1) < at(0));
}

#[test]
fn a_full_line_is_no_capacity_and_says_when_to_come_back() {
    let mut driver = Driver::new(&MockerConfig {
        max_waiting: 2,
        ..config()
    });
    for name in ["a", "b"] {
        driver.submit(request(name, &[1; 5], 3)).unwrap();
    }
    let error = driver.submit(request("c", &[1; 5], 3)).unwrap_err();
    assert_eq!(error.class, ErrorClass::CapacityExhausted);
    assert_eq!(error.reason, "queue_full");
    assert!(error.retry_after.is_some());
    driver.step();
    driver.submit(request("c", &[1; 5], 3)).unwrap();
    driver.run();
    driver.assert_idle();
}

#[test]
fn what_can_never_fit_is_refused_by_its_limit() {
    let mut driver = Driver::new(&MockerConfig {
        kv_blocks: 10,
        ..config()
    });
    assert_eq!(driver.mocker.context_length(), 41);
    let error = driver.submit(request("a", &[1; 300], 1)).unwrap_err();
    assert_eq!(error.reason, "context_length_exceeded");
    let error = driver.submit(request("a", &[1; 50], 1)).unwrap_err();
    assert_eq!(error.class, ErrorClass::TooLarge);
    driver.submit(request("a", &[1; 5], 3)).unwrap();
    let error = driver.submit(request("a", &[1; 5], 3)).unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
}

#[test]
fn who_loses_blocks_to_others_loses_no_token() {
    let mut driver = Driver::new(&MockerConfig {
        kv_blocks: 12,
        ..config()
    });
    let requests: Vec<_> = (0..3)
        .map(|i| request(&format!("r{i}"), &[i; 7], 30))
        .collect();
    let ids: Vec<_> = requests
        .iter()
        .map(|asked| driver.submit(asked.clone()).unwrap())
        .collect();
    driver.run();
    assert!(driver.preempted > 0, "there was room for all");
    for (id, asked) in ids.iter().zip(requests) {
        let alone = Driver::new(&config()).answer(asked);
        assert_eq!(driver.heard[id].tokens, alone.tokens);
    }
    driver.assert_idle();
}

#[test]
fn an_abort_gives_what_was_not_taken_and_frees_all() {
    let mut driver = Driver::new(&config());
    let id = driver.submit(request("a", &[1; 10], 50)).unwrap();
    driver.mocker.step(driver.now);
    for _ in 0..3 {
        let due = driver.mocker.wake_at().unwrap();
        driver.mocker.step(due);
    }
    let last = driver.mocker.abort(id).unwrap();
    assert_eq!(last.token_ids.len(), 3);
    assert_eq!(last.finish_reason(), FinishReason::Cancelled);
    assert_eq!(last.prompt.unwrap().prompt_tokens, 10);
    assert_eq!(driver.mocker.abort(id), None);
    assert_eq!(driver.mocker.take_outputs(), []);
    driver.run();
    driver.assert_idle();
    // Before its first token, too, it is known how long the prompt was.
    let id = driver.submit(request("a", &[1; 10], 50)).unwrap();
    let last = driver.mocker.abort(id).unwrap();
    assert_eq!(last.prompt.unwrap().prompt_tokens, 10);
}
