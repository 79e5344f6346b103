//! Hot paths of the wire types: what a request and an output pay.

use forebay_protocols::openai::{self, ChatCompletionRequest};
use forebay_protocols::worker::{GenerateOutput, GenerateRequest};
use forebay_testkit::instructions::{self, measured};
use prost::Message;

/// A conversation of 16 turns, about 8 KiB.
fn body() -> Vec<u8> {
    let mut messages = String::new();
    for turn in 0..16 {
        let role = if turn % 2 == 0 { "user" } else { "assistant" };
        let text = "the quick brown fox jumps over the lazy dog ".repeat(11);
        let comma = if turn == 0 { "" } else { "," };
        messages += &format!(r#"{comma}{{"role": "{role}", "content": "{text}"}}"#);
    }
    let rest = r#""temperature": 0.7, "top_p": 0.9, "stream": true, "max_completion_tokens": 256"#;
    format!(r#"{{"model": "m", "messages": [{messages}], {rest}}}"#).into_bytes()
}

fn parse_chat_request() {
    let body = body();
    let request = measured(|| {
        let request = openai::parse::<ChatCompletionRequest>(&body)?;
        request.generation().map(|_| request)
    });
    assert!(request.is_ok(), "the body is valid");
}

fn request() -> GenerateRequest {
    GenerateRequest {
        request_id: "0123456789abcdef0123456789abcdef".into(),
        prompt_token_ids: (0..8192).collect(),
        ..GenerateRequest::default()
    }
}

fn encode_generate_request() {
    let request = request();
    measured(|| request.encode_to_vec());
}

fn decode_generate_request() {
    let bytes = request().encode_to_vec();
    let request = measured(|| GenerateRequest::decode(bytes.as_slice()));
    assert!(request.is_ok_and(|request| request.prompt_token_ids.len() == 8192));
}

/// What the token path pays, 1000 times.
fn round_trip_generate_output() {
    let mut output = GenerateOutput {
        token_ids: vec![49151],
        ..GenerateOutput::default()
    };
    let mut bytes = Vec::with_capacity(64);
    measured(|| {
        for _ in 0..1000 {
            bytes.clear();
            output.encode(&mut bytes).expect("a Vec grows");
            output = GenerateOutput::decode(bytes.as_slice()).expect("just encoded");
        }
    });
    assert_eq!(output.token_ids, [49151]);
}

fn main() {
    instructions::main(&[
        ("parse_chat_request_8k", parse_chat_request),
        ("encode_generate_request_8192", encode_generate_request),
        ("decode_generate_request_8192", decode_generate_request),
        ("generate_output_1000", round_trip_generate_output),
    ]);
}
