use std::sync::Arc;

use forebay_engine::{Error, ErrorClass, FinishReason};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use crate::client::{chunks, open_post, post, read_until};
use crate::engine::{ScriptedEngine, Turn, opening, output, say};
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn chat(more: Value) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let mut body = json!({"model": "test", "messages": messages, "stream": true});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_chat_stream_byte_for_byte() {
    let server = Server::start(ScriptedEngine::saying("\"\n")).await;
    let response = post(server.address, CHAT, &chat(json!({}))).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("cache-control"), Some("no-cache"));
    let id = response.header("x-request-id").unwrap();
    let first: Value = serde_json::from_str(response.events()[0]).unwrap();
    let created = &first["created"];
    let event = |choices: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\
             \"created\":{created},\"model\":\"test\",\"choices\":[{choices}]}}\n\n"
        )
    };
    let text = |text| {
        event(&format!(
            "{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"logprobs\":null,\
             \"finish_reason\":null}}"
        ))
    };
    let expected = [
        event(
            "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\
             \"logprobs\":null,\"finish_reason\":null}",
        ),
        text("\\\""),
        text("\\n"),
        event("{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}"),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat();
    assert_eq!(response.body, expected);
}

#[tokio::test]
async fn the_usage_comes_last_and_is_null_before() {
    let server = Server::start(ScriptedEngine::saying("ab")).await;
    let body = chat(json!({"stream_options": {"include_usage": true}}));
    let response = post(server.address, CHAT, &body).await;
    let events = response.events();
    let (last, before) = events.split_last().unwrap();
    assert_eq!(*last, "[DONE]");
    let mut events: Vec<Value> = before
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let usage = events.pop().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], 21);
    assert_eq!(usage["usage"]["completion_tokens"], 2);
    assert_eq!(usage["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    for event in events {
        assert_eq!(event.get("usage"), Some(&Value::Null), "{event}");
    }
}

#[tokio::test]
async fn a_completion_stream() {
    let server = Server::start(ScriptedEngine::saying("aé;x")).await;
    let body = json!({
        "model": "base", "prompt": "p", "stream": true, "stop": ";", "logprobs": 0,
    });
    let response = post(server.address, COMPLETIONS, &body).await;
    let events = response.events();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let choices: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap())
        .inspect(|event| assert_eq!(event["object"], "text_completion"))
        .map(|event| event["choices"][0].clone())
        .collect();
    let texts: String = choices
        .iter()
        .map(|c| c["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, "aé");
    let offsets: Vec<u64> = choices
        .iter()
        .filter_map(|choice| choice["logprobs"]["text_offset"].as_array())
        .flatten()
        .map(|offset| offset.as_u64().unwrap())
        .collect();
    // The tokens of the stop string belong to the answer, its text does not.
    assert_eq!(offsets, [0, 1, 1, 2]);
    let last = choices.last().unwrap();
    assert_eq!(last["finish_reason"], "stop");
    assert_eq!(last["stop_reason"], ";");
    assert!(
        choices
            .iter()
            .rev()
            .skip(1)
            .all(|c| c["finish_reason"].is_null())
    );
}

#[tokio::test]
async fn choices_come_interleaved_under_their_index() {
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    let script_gates = gates.clone();
    let engine = ScriptedEngine::new(move |request| {
        let gate = &script_gates[request.choice_index as usize];
        let text = ["ab", "xy"][request.choice_index as usize];
        let wait = |turn| [turn, Turn::Wait(gate.clone())];
        Ok(say(request, text).into_iter().flat_map(wait).collect())
    });
    let server = Server::start(engine).await;
    let mut stream = open_post(server.address, CHAT, &chat(json!({"n": 2}))).await;
    let token =
        |index: u8, text: char| format!("\"index\":{index},\"delta\":{{\"content\":\"{text}\"}}");
    // The engine goes on with the one that the test lets go on, and the client sees that.
    for (choice, text) in [(1, 'x'), (0, 'a'), (0, 'b'), (1, 'y')] {
        gates[choice].add_permits(1);
        read_until(&mut stream, &token(choice as u8, text)).await;
    }
    gates.iter().for_each(|gate| gate.add_permits(1));
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("data: [DONE]\n\n"), "{rest}");
}

#[tokio::test]
async fn a_stop_string_ends_one_choice_and_not_the_other() {
    let gate = Arc::new(Semaphore::new(0));
    let script_gate = gate.clone();
    let engine = ScriptedEngine::new(move |request| {
        let mut turns = say(request, ["a;never", "xyz"][request.choice_index as usize]);
        if request.choice_index == 1 {
            turns.insert(2, Turn::Wait(script_gate.clone()));
        } else {
            turns.insert(3, Turn::Wait(Arc::new(Semaphore::new(0))));
        }
        Ok(turns)
    });
    let server = Server::start(engine.clone()).await;
    let mut stream = open_post(server.address, CHAT, &chat(json!({"n": 2, "stop": ";"}))).await;
    read_until(&mut stream, "\"finish_reason\":\"stop\"").await;
    engine.until_live(1).await;
    gate.add_permits(1);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.contains("\"content\":\"z\"") && rest.contains("[DONE]"),
        "{rest}"
    );
    engine.until_live(0).await;
}

#[tokio::test]
async fn what_is_ready_together_is_one_write() {
    let engine = ScriptedEngine::saying("abcdef");
    let server = Server::start(engine).await;
    let mut stream = open_post(server.address, CHAT, &chat(json!({}))).await;
    let mut bytes = String::new();
    stream.read_to_string(&mut bytes).await.unwrap();
    let (_, body) = bytes.split_once("\r\n\r\n").unwrap();
    let chunks = chunks(body);
    assert_eq!(chunks.len(), 2, "the text, and the end: {chunks:#?}");
    assert_eq!(chunks[0].matches("data: ").count(), 1 + 6 + 1);
}

#[tokio::test]
async fn an_error_before_the_first_output_is_a_status() {
    let engine = ScriptedEngine::new(|request| match request.choice_index {
        0 => Ok(say(request, "fine")),
        _ => Err(Error::new(
            ErrorClass::CapacityExhausted,
            "queue_full",
            "the queue is full",
        )
        .with_retry_after(std::time::Duration::from_millis(1500))),
    });
    let server = Server::start(engine.clone()).await;
    let response = post(server.address, CHAT, &chat(json!({"n": 2}))).await;
    response.assert_error(503, "queue_full", None);
    assert_eq!(response.header("retry-after"), Some("2"));
    engine.until_live(0).await;

    let fails_first = ScriptedEngine::new(|_| Ok(vec![Turn::Fail(Error::internal("secret"))]));
    let server = Server::start(fails_first).await;
    let response = post(server.address, CHAT, &chat(json!({}))).await;
    response.assert_error(500, "internal_error", None);
    assert!(!response.body.contains("secret"));
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_stream_without_done() {
    let gate = Arc::new(Semaphore::new(0));
    let script_gate = gate.clone();
    let engine = ScriptedEngine::new(move |request| {
        Ok(vec![
            Turn::Output(opening(request, 0)),
            Turn::Output(output(request, &[65])),
            Turn::Wait(script_gate.clone()),
            Turn::Fail(Error::new(
                ErrorClass::Unavailable,
                "worker_lost",
                "the worker is gone",
            )),
        ])
    });
    let server = Server::start(engine.clone()).await;
    let mut stream = open_post(server.address, CHAT, &chat(json!({}))).await;
    let head = read_until(&mut stream, "\"content\":\"A\"").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    gate.add_permits(1);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    let error = "data: {\"error\":{\"message\":\"the worker is gone\",\
                 \"type\":\"service_unavailable_error\",\"param\":null,\
                 \"code\":\"worker_lost\"}}\n\n\r\n0\r\n\r\n";
    assert!(rest.ends_with(error), "{rest}");
    assert!(!rest.contains("[DONE]"));
    engine.until_live(0).await;
    let counted = "forebay_frontend_requests_total{endpoint=\"chat_completions\",model=\"test\",\
                   status=\"5xx\"} 1";
    assert!(server.has_metric(counted));
}

#[tokio::test]
async fn an_engine_that_breaks_its_contract_is_a_bad_gateway() {
    // More tokens than the budget, and a stream without an end.
    let too_many = ScriptedEngine::new(|request| {
        let mut all = opening(request, 0);
        all.token_ids = vec![65; 4];
        Ok(vec![Turn::Output(all)])
    });
    let endless = ScriptedEngine::new(|request| Ok(vec![Turn::Output(opening(request, 0))]));
    for (engine, code) in [
        (too_many, "budget_exceeded"),
        (endless, "stream_unfinished"),
    ] {
        let server = Server::start(engine.clone()).await;
        let body = chat(json!({"max_tokens": 3, "stream": false}));
        let response = post(server.address, CHAT, &body).await;
        response.assert_error(502, code, None);
        engine.until_live(0).await;
    }
}

#[tokio::test]
async fn what_an_engine_says_after_the_end_is_not_waited_for() {
    let engine = ScriptedEngine::new(|request| {
        let mut only = opening(request, 0);
        only.token_ids = vec![65];
        only.finish_reason = FinishReason::Length.into();
        let never = Arc::new(Semaphore::new(0));
        Ok(vec![Turn::Output(only), Turn::Wait(never)])
    });
    let server = Server::start(engine.clone()).await;
    let response = post(server.address, CHAT, &chat(json!({}))).await;
    assert_eq!(response.events().last(), Some(&"[DONE]"));
    engine.until_live(0).await;
}

#[tokio::test]
async fn a_stream_adds_up_to_the_whole_answer() {
    const TEXT: &str = "é\u{1f642}, \"a\" and\\b;; c\n";
    for step in 1..=4 {
        let engine = ScriptedEngine::new(move |request| {
            let mut turns = vec![Turn::Output(opening(request, 3))];
            let tokens: Vec<u32> = TEXT.bytes().map(u32::from).collect();
            turns.extend(
                tokens
                    .chunks(step)
                    .map(|tokens| Turn::Output(output(request, tokens))),
            );
            let mut last = output(request, &[]);
            last.finish_reason = FinishReason::Length.into();
            turns.push(Turn::Output(last));
            Ok(turns)
        });
        let server = Server::start(engine).await;
        for stop in [
            json!(null),
            json!(";;"),
            json!(["b;", "\u{1f642}"]),
            json!(";;x"),
        ] {
            let asked = |stream: bool| {
                let options = stream.then(|| json!({"include_usage": true}));
                chat(json!({
                    "stream": stream, "stop": stop, "logprobs": true, "stream_options": options,
                }))
            };
            let whole = post(server.address, CHAT, &asked(false)).await.json();
            let streamed = post(server.address, CHAT, &asked(true)).await;
            let events: Vec<Value> = streamed
                .events()
                .into_iter()
                .filter(|event| *event != "[DONE]")
                .map(|event| serde_json::from_str(event).unwrap())
                .collect();
            let choices = || events.iter().filter_map(|event| event["choices"].get(0));
            let text: String = choices()
                .filter_map(|choice| choice["delta"]["content"].as_str())
                .collect();
            let logprobs: Vec<&Value> = choices()
                .filter_map(|choice| choice["logprobs"]["content"].as_array())
                .flatten()
                .collect();
            let choice = &whole["choices"][0];
            assert_eq!(choice["message"]["content"], text);
            assert_eq!(choice["logprobs"]["content"], json!(logprobs));
            assert_eq!(whole["usage"], events.last().unwrap()["usage"]);
            let last = choices().next_back().unwrap();
            assert_eq!(choice["finish_reason"], last["finish_reason"]);
            assert_eq!(choice["stop_reason"], last["stop_reason"]);
        }
    }
}
