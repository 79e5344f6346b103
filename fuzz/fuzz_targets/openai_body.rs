//! A request's body of any bytes, read as each kind of request, as far as what it asks of an
//! engine; and that is within the API's limits.

#![no_main]

use forebay_protocols::Error;
use forebay_protocols::openai::{ChatCompletionRequest, CompletionRequest, Generation, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let chat = parse(body).and_then(|body: ChatCompletionRequest| body.generation());
    let completion = parse(body).and_then(|body: CompletionRequest| body.generation());
    within_limits(chat);
    within_limits(completion);
});

fn within_limits(generation: Result<Generation, Error>) {
    let Ok(generation) = generation else {
        return;
    };
    assert!(generation.choices > 0);
    assert!(generation.stop_strings.len() <= Generation::MAX_STOP_STRINGS);
    assert!(generation.stop_strings.iter().all(|stop| !stop.is_empty()));
    let temperature = generation.sampling.temperature.unwrap_or(1.0);
    assert!((0.0..=2.0).contains(&temperature));
}
