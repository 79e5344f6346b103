//! Hot paths of the mocker: what a measurement with it pays beside what it measures.

use std::time::Duration;

use forebay_mocker::{Mocker, MockerConfig, vocabulary};
use forebay_protocols::worker::{GenerateRequest, StopConditions};
use forebay_testkit::instructions::{self, measured};
use forebay_tokens::ContentKey;

const NOW: Duration = Duration::ZERO;

fn mocker() -> Mocker {
    let config = MockerConfig {
        speed: 0.0,
        ..MockerConfig::default()
    };
    Mocker::new(&config, 0, ContentKey::new([7; 32]), NOW).expect("it is valid")
}

fn request(n: u32, prompt_tokens: u32, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: format!("request-{n}"),
        prompt_token_ids: (0..prompt_tokens).map(|i| (i * 7 + n) % 30_000).collect(),
        stop: Some(StopConditions {
            max_tokens: Some(max_tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// From its prompt to its only token.
fn one_token(prompt_tokens: u32) {
    let mut mocker = mocker();
    let request = request(0, prompt_tokens, 1);
    measured(|| {
        mocker.submit(NOW, request).expect("there is room");
        while mocker.wake_at().is_some() {
            mocker.step(NOW);
        }
        mocker.take_outputs()
    });
}

/// 512 tokens of one choice, taken together.
fn burst() {
    let mut mocker = mocker();
    mocker
        .submit(NOW, request(0, 128, 512))
        .expect("there is room");
    let outputs = measured(|| {
        while mocker.wake_at().is_some() {
            mocker.step(NOW);
        }
        mocker.take_outputs()
    });
    assert_eq!(outputs.len(), 1);
}

/// One iteration of 128 choices, and their outputs.
fn decode() {
    let mut mocker = mocker();
    for n in 0..128 {
        mocker
            .submit(NOW, request(n, 8, 100))
            .expect("there is room");
    }
    mocker.step(NOW);
    mocker.step(NOW);
    mocker.take_outputs();
    let outputs = measured(|| {
        mocker.step(NOW);
        mocker.take_outputs()
    });
    assert_eq!(outputs.len(), 128);
}

fn main() {
    instructions::main(&[
        ("one_token_128", || one_token(128)),
        ("one_token_8192", || one_token(8_192)),
        ("burst_512", burst),
        ("decode_128", decode),
        ("vocabulary", || drop(measured(vocabulary))),
    ]);
}
