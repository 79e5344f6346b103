//! What the API's requests mean, and what of them is refused.
#![allow(clippy::unwrap_used)]

use forebay_protocols::ErrorClass;
use forebay_protocols::openai::{
    ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, Completion, CompletionRequest,
    FinishReason, Generation, Prompt, parse,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn chat(fields: &Value) -> ChatCompletionRequest {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    parse(body.to_string().as_bytes()).unwrap()
}

fn completion(fields: &Value) -> CompletionRequest {
    let mut body = json!({"model": "m", "prompt": "hi"});
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    parse(body.to_string().as_bytes()).unwrap()
}

#[test]
fn defaults_are_the_apis() {
    let generation = chat(&json!({})).generation().unwrap();
    assert_eq!(generation.choices, 1);
    assert_eq!(generation.seed, None);
    assert_eq!(generation.stop.max_tokens, None, "what the context leaves");
    assert_eq!(generation.output.logprobs, None);
    assert_eq!(generation.sampling.temperature, None);
    assert!(generation.skip_special_tokens && !generation.stream);
    let generation = completion(&json!({})).generation().unwrap();
    assert_eq!(generation.stop.max_tokens, Some(16));
    let generation = completion(&json!({"min_tokens": 20})).generation().unwrap();
    assert_eq!(generation.stop.max_tokens, Some(20));
}

#[test]
fn fields_arrive_where_the_engine_reads_them() {
    let generation = chat(&json!({
        "n": 3, "max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": -1,
        "min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": -1, "frequency_penalty": 2,
        "seed": -1, "stop": ["a", "b"], "stop_token_ids": [5], "min_tokens": 2, "ignore_eos": true,
        "include_stop_str_in_output": true, "skip_special_tokens": false,
        "logit_bias": {"9": -100, "3": 1.5}, "stream": true,
        "stream_options": {"include_usage": true}, "cache_salt": "s", "priority": -4,
        "logprobs": true, "top_logprobs": 2,
    }))
    .generation()
    .unwrap();
    assert_eq!(generation.choices, 3);
    assert_eq!(generation.stop.max_tokens, Some(7));
    assert_eq!(generation.stop.min_tokens, 2);
    assert_eq!(generation.stop.stop_token_ids, [5]);
    assert!(generation.stop.ignore_eos);
    assert_eq!(generation.sampling.top_k, 0);
    assert_eq!(generation.sampling.seed, u64::MAX);
    assert_eq!(generation.seed, Some(u64::MAX));
    assert_eq!(generation.sampling.frequency_penalty, 2.0);
    let biases: Vec<_> = generation
        .sampling
        .logit_bias
        .iter()
        .map(|bias| (bias.token_id, bias.bias))
        .collect();
    assert_eq!(biases, [(3, 1.5), (9, -100.0)]);
    assert_eq!(generation.stop_strings, ["a", "b"]);
    assert_eq!(generation.output.logprobs, Some(2));
    assert!(generation.include_usage && generation.include_stop_string);
    assert_eq!((&*generation.cache_salt, generation.priority), ("s", -4));
}

#[test]
fn what_is_out_of_range_is_refused_by_name() {
    let long_stop = vec!["x"; Generation::MAX_STOP_STRINGS + 1];
    let many_notes: serde_json::Map<_, _> = (0..17).map(|n| (n.to_string(), json!(""))).collect();
    let cases = [
        ("n", json!({"n": 0})),
        ("n", json!({"n": 129})),
        ("max_tokens", json!({"max_tokens": 0})),
        ("max_completion_tokens", json!({"max_completion_tokens": 0})),
        (
            "max_completion_tokens",
            json!({"max_completion_tokens": 1, "max_tokens": 2}),
        ),
        ("temperature", json!({"temperature": -1})),
        ("temperature", json!({"temperature": 2.1})),
        ("top_p", json!({"top_p": 0})),
        ("top_k", json!({"top_k": -2})),
        ("min_p", json!({"min_p": 1.1})),
        ("repetition_penalty", json!({"repetition_penalty": 0})),
        ("presence_penalty", json!({"presence_penalty": 3})),
        ("frequency_penalty", json!({"frequency_penalty": -3})),
        ("stop", json!({"stop": ""})),
        ("stop", json!({"stop": long_stop})),
        ("min_tokens", json!({"min_tokens": 5, "max_tokens": 4})),
        ("logit_bias", json!({"logit_bias": {"x": 1}})),
        ("logit_bias", json!({"logit_bias": {"1": 101}})),
        ("logit_bias", json!({"logit_bias": {"7": 1, "07": 2}})),
        ("stream_options", json!({"stream_options": {}})),
        ("top_logprobs", json!({"top_logprobs": 2})),
        (
            "top_logprobs",
            json!({"top_logprobs": 21, "logprobs": true}),
        ),
        ("cache_salt", json!({"cache_salt": "x".repeat(257)})),
        ("metadata", json!({"metadata": many_notes})),
        ("metadata", json!({"metadata": {"": "x"}})),
        ("metadata", json!({"metadata": {"k".repeat(65): "x"}})),
        ("metadata", json!({"metadata": {"k": "x".repeat(513)}})),
        ("messages", json!({"messages": []})),
        (
            "messages[0].role",
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
        ),
        (
            "messages[0].content",
            json!({"messages": [{"role": "user"}]}),
        ),
        (
            "messages[1].content[0].text",
            json!({"messages": [
                {"role": "user", "content": "x"},
                {"role": "user", "content": [{"type": "text"}]},
            ]}),
        ),
    ];
    for (param, fields) in cases {
        let error = chat(&fields).generation().unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{fields}");
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{fields}");
        assert!(error.message.starts_with(param), "{error}");
    }
    let error = completion(&json!({"logprobs": 21}))
        .generation()
        .unwrap_err();
    assert_eq!(error.param.as_deref(), Some("logprobs"));
    let error = completion(&json!({"echo": true, "logprobs": 0}))
        .generation()
        .unwrap_err();
    assert_eq!(error.param.as_deref(), Some("echo"));
    assert_eq!(error.class, ErrorClass::Unsupported);
}

#[test]
fn metadata_has_texts_of_any_script_up_to_its_limits() {
    let notes: serde_json::Map<_, _> = (0..16)
        .map(|n| (format!("{n:é>64}"), json!("é".repeat(512))))
        .collect();
    chat(&json!({"metadata": notes, "user": "u"}))
        .generation()
        .unwrap();
    let body = json!({"model": "m", "prompt": "x", "metadata": {"k": 7}});
    let error = parse::<CompletionRequest>(body.to_string().as_bytes()).unwrap_err();
    assert!(error.param.unwrap().starts_with("metadata"));
}

#[test]
fn what_is_not_implemented_is_refused_by_name_unless_it_changes_nothing() {
    let refused = [
        json!({"tools": [{"type": "function"}]}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"tool_choice": "required"}),
        json!({"best_of": 2}),
        json!({"echo": true}),
        json!({"modalities": ["text", "audio"]}),
    ];
    for fields in refused {
        let name = fields.as_object().unwrap().keys().next().unwrap().clone();
        let error = chat(&fields).generation().unwrap_err();
        assert_eq!(error.class, ErrorClass::Unsupported, "{fields}");
        assert_eq!(error.param, Some(name));
    }
    let image = json!({"messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
    ]});
    let error = chat(&image).generation().unwrap_err();
    assert_eq!(error.class, ErrorClass::Unsupported);
    assert_eq!(error.param.as_deref(), Some("messages[0].content[0].type"));

    let neutral = json!({
        "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "echo": false,
        "user": "u", "metadata": {"a": "b"}, "store": false, "audio": null, "anything": null,
        "parallel_tool_calls": true, "service_tier": "auto", "best_of": 1,
    });
    chat(&neutral).generation().unwrap();

    let error = chat(&json!({"max_token": 3})).generation().unwrap_err();
    assert_eq!(error.reason, "unknown_parameter");
    assert_eq!(
        error.message,
        "max_token: unknown field; did you mean max_tokens?"
    );
    let error = chat(&json!({"zzzzzzzz": 3})).generation().unwrap_err();
    assert_eq!(error.message, "zzzzzzzz: unknown field");
}

#[test]
fn unknown_fields_are_kept() {
    let body = json!({
        "model": "m", "n": 2, "x_vendor": {"deep": [1, 2]},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache": true}], "x": 1},
            {"role": "assistant", "tool_calls": [{"id": "call"}]},
        ],
    });
    let request: ChatCompletionRequest = parse(body.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&request).unwrap(), body);
    for message in request.messages {
        let written = serde_json::to_string(&message).unwrap();
        assert_eq!(Value::from(message).to_string(), written);
    }
}

#[test]
fn prompts_have_four_forms() {
    let prompt = |prompt: Value| completion(&json!({"prompt": prompt})).prompt;
    assert_eq!(prompt(json!("a")), Prompt::Text("a".into()));
    assert_eq!(prompt(json!([1, 2])), Prompt::Tokens(vec![1, 2]));
    assert_eq!(
        prompt(json!(["a", "b"])),
        Prompt::Texts(vec!["a".into(), "b".into()])
    );
    assert_eq!(
        prompt(json!([[1], [2, 3]])),
        Prompt::TokenLists(vec![vec![1], vec![2, 3]])
    );
    assert_eq!(prompt(json!([])), Prompt::Tokens(vec![]));
    for bad in [json!(7), json!([1, "a"]), json!([-1]), json!({"a": 1})] {
        let body = json!({"model": "m", "prompt": bad});
        let error = parse::<CompletionRequest>(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("prompt"), "{body}");
    }
}

/// The JSON of a capture: its response body, or each event of its stream.
fn captured(text: &str) -> Vec<Value> {
    let body = text
        .split("\n\n")
        .find(|part| part.starts_with('{') && part.contains("\"object\""));
    let events = text.lines().filter_map(|line| line.strip_prefix("data: {"));
    match text.contains("text/event-stream") {
        true => events
            .map(|event| serde_json::from_str(&format!("{{{event}")).unwrap())
            .collect(),
        false => vec![serde_json::from_str(body.unwrap().lines().next().unwrap()).unwrap()],
    }
}

#[test]
fn answers_of_a_real_engine_are_read() {
    let answers = captured(include_str!("../../../testdata/vllm-0.32.0/http/chat.txt"));
    let answer: ChatCompletion = serde_json::from_value(answers[0].clone()).unwrap();
    let choice = &answer.choices[0];
    assert_eq!(
        choice.message.content.as_deref(),
        Some("The capital of France is Paris.")
    );
    assert_eq!(choice.finish_reason, Some(FinishReason::Stop));
    assert_eq!(choice.logprobs.as_ref().unwrap().content.len(), 8);
    assert_eq!(answer.usage.completion_tokens, 8);

    let events = captured(include_str!(
        "../../../testdata/vllm-0.32.0/http/chat_stream.txt"
    ));
    let chunks: Vec<ChatCompletionChunk> = events
        .into_iter()
        .map(|event| serde_json::from_value(event).unwrap())
        .collect();
    let text: String = chunks
        .iter()
        .flat_map(|chunk| &chunk.choices)
        .filter_map(|choice| choice.delta.content.as_deref())
        .collect();
    assert_eq!(text, "The capital of France is Paris.");
    assert_eq!(chunks.last().unwrap().usage.unwrap().total_tokens, 51);

    let events = captured(include_str!(
        "../../../testdata/vllm-0.32.0/http/completion_stream.txt"
    ));
    let chunks: Vec<Completion> = events
        .into_iter()
        .map(|event| serde_json::from_value(event).unwrap())
        .collect();
    assert_eq!(chunks.last().unwrap().usage.unwrap().completion_tokens, 8);
}

proptest! {
    /// No body makes the reader do anything but answer.
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = parse::<ChatCompletionRequest>(&body) {
            let _ = request.generation();
        }
        if let Ok(request) = parse::<CompletionRequest>(&body) {
            let _ = request.generation();
        }
    }

    /// Whatever passes is within the ranges that engines are promised.
    #[test]
    fn what_passes_is_in_range(
        temperature in -3f32..5.0, top_p in -1f32..2.0, min_p in -1f32..2.0,
        repetition in -1f32..12.0, presence in -3f32..3.0, n in 0u32..200,
    ) {
        let request = chat(&json!({
            "temperature": temperature, "top_p": top_p, "min_p": min_p, "n": n,
            "repetition_penalty": repetition, "presence_penalty": presence,
        }));
        let expected = (0.0..=2.0).contains(&temperature)
            && top_p > 0.0 && top_p <= 1.0
            && (0.0..=1.0).contains(&min_p)
            && repetition > 0.0 && repetition <= 10.0
            && (-2.0..=2.0).contains(&presence)
            && (1..=128).contains(&n);
        prop_assert_eq!(request.generation().is_ok(), expected);
    }
}
