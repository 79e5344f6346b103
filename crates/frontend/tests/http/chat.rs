use serde_json::{Value, json};

use crate::client::{post, send};
use crate::engine::{ScriptedEngine, Turn, opening, output, say, tokens_as_turns};
use crate::server::Server;

const PATH: &str = "/v1/chat/completions";

fn chat(more: Value) -> Value {
    let mut body = json!({"model": "test", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_whole_answer() {
    let engine = ScriptedEngine::new(|request| Ok(tokens_as_turns(request, &[72, 105, 33, 257])));
    let server = Server::start(engine.clone()).await;
    let response = post(server.address, PATH, &chat(json!({}))).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));

    let answer = response.json();
    let id = response.header("x-request-id").unwrap();
    assert_eq!(answer["id"], format!("chatcmpl-{id}"));
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "test");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(
        answer["choices"],
        json!([{
            "index": 0,
            "message": {"role": "assistant", "content": "Hi!", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }])
    );
    // <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n, with one token for each marker.
    let prompt_tokens = 1 + 7 + 1 + 1 + 1 + 10;
    assert_eq!(
        answer["usage"],
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 4,
            "total_tokens": prompt_tokens + 4,
            "prompt_tokens_details": {"cached_tokens": 0},
        })
    );

    let [request] = &engine.requests()[..] else {
        panic!("one request");
    };
    assert_eq!(request.request_id, id);
    assert_eq!(request.model, "test");
    assert_eq!(request.prompt_token_ids.len(), prompt_tokens);
    let stop = request.stop.as_ref().unwrap();
    // Without a limit of the client's, the context is the limit.
    assert_eq!(stop.max_tokens, Some(200 - prompt_tokens as u32));
    assert_eq!(stop.eos_token_ids, [257, 258]);
}

#[tokio::test]
async fn settings_reach_the_engine_and_a_seed_is_drawn() {
    let engine = ScriptedEngine::saying("ok");
    let server = Server::start(engine.clone()).await;
    let body = chat(json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "seed": -1, "max_completion_tokens": 7,
        "stop_token_ids": [33], "min_tokens": 2, "cache_salt": "s", "logit_bias": {"65": -5},
    }));
    post(server.address, PATH, &body).await;
    post(server.address, PATH, &chat(json!({}))).await;
    post(server.address, PATH, &chat(json!({}))).await;

    let requests = engine.requests();
    let sampling = requests[0].sampling.as_ref().unwrap();
    assert_eq!(sampling.temperature, Some(0.5));
    assert_eq!(sampling.top_k, 40);
    assert_eq!(sampling.seed, u64::MAX);
    assert_eq!(sampling.logit_bias[0].token_id, 65);
    let stop = requests[0].stop.as_ref().unwrap();
    assert_eq!((stop.max_tokens, stop.min_tokens), (Some(7), 2));
    assert_eq!(stop.stop_token_ids, [33]);
    assert_eq!(requests[0].cache_salt, "s");
    let seed = |index: usize| requests[index].sampling.as_ref().unwrap().seed;
    assert_ne!(seed(1), seed(2));
}

#[tokio::test]
async fn choices_are_dispatched_each_and_given_in_order() {
    let engine = ScriptedEngine::new(|request| {
        let turns = say(request, &"abc"[request.choice_index as usize..]);
        Ok(turns)
    });
    let server = Server::start(engine.clone()).await;
    let answer = post(server.address, PATH, &chat(json!({"n": 3})))
        .await
        .json();
    let choices = answer["choices"].as_array().unwrap();
    for (index, text) in ["abc", "bc", "c"].into_iter().enumerate() {
        assert_eq!(choices[index]["index"], index);
        assert_eq!(choices[index]["message"]["content"], text);
        assert_eq!(choices[index]["finish_reason"], "length");
    }
    // The prompt counts once.
    assert_eq!(answer["usage"]["prompt_tokens"], 21);
    assert_eq!(answer["usage"]["completion_tokens"], 6);
    let requests = engine.requests();
    let indices: Vec<_> = requests.iter().map(|r| r.choice_index).collect();
    assert_eq!(indices, [0, 1, 2]);
    assert_eq!(requests[0].request_id, requests[2].request_id);
    let seeds: Vec<_> = requests
        .iter()
        .map(|request| request.sampling.as_ref().unwrap().seed)
        .collect();
    assert!(seeds.iter().all(|seed| *seed == seeds[0]));
}

#[tokio::test]
async fn a_stop_string_ends_the_choice_in_the_engine() {
    let engine = ScriptedEngine::saying("one, two; three");
    let server = Server::start(engine.clone()).await;
    let body = chat(json!({"stop": [";", "never"]}));
    let answer = post(server.address, PATH, &body).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "one, two");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], ";");
    assert_eq!(answer["usage"]["completion_tokens"], "one, two;".len());
    engine.until_live(0).await;

    let body = chat(json!({"stop": ";", "include_stop_str_in_output": true}));
    let answer = post(server.address, PATH, &body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "one, two;");
}

#[tokio::test]
async fn a_stop_token_counts_but_shows_neither_in_text_nor_in_logprobs() {
    let engine = ScriptedEngine::saying("ab!c");
    let server = Server::start(engine).await;
    let body = chat(json!({"stop_token_ids": [33], "logprobs": true}));
    let answer = post(server.address, PATH, &body).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "ab");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], 33);
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn log_probabilities_have_texts_and_bytes() {
    let engine = ScriptedEngine::saying("é");
    let server = Server::start(engine.clone()).await;
    let body = chat(json!({"logprobs": true, "top_logprobs": 1}));
    let answer = post(server.address, PATH, &body).await.json();
    assert_eq!(
        answer["choices"][0]["logprobs"]["content"],
        json!([
            {
                "token": "\u{fffd}", "logprob": -0.5, "bytes": [0xc3],
                "top_logprobs": [{"token": "?", "logprob": -0.25, "bytes": [63]}],
            },
            {
                "token": "\u{fffd}", "logprob": -0.5, "bytes": [0xa9],
                "top_logprobs": [{"token": "?", "logprob": -0.25, "bytes": [63]}],
            },
        ])
    );
    assert_eq!(engine.requests()[0].output.unwrap().logprobs, Some(1));
}

#[tokio::test]
async fn cached_tokens_are_those_of_the_engine() {
    let engine = ScriptedEngine::new(|request| {
        let mut last = output(request, &[65]);
        last.finish_reason = forebay_engine::FinishReason::Length.into();
        Ok(vec![Turn::Output(opening(request, 16)), Turn::Output(last)])
    });
    let server = Server::start(engine).await;
    let answer = post(server.address, PATH, &chat(json!({"n": 2})))
        .await
        .json();
    assert_eq!(
        answer["usage"]["prompt_tokens_details"]["cached_tokens"],
        16
    );
    for line in [
        "forebay_frontend_prompt_tokens_total{model=\"test\"} 21",
        "forebay_frontend_cached_tokens_total{model=\"test\"} 16",
        "forebay_frontend_completion_tokens_total{model=\"test\"} 2",
        "forebay_frontend_requests_total{endpoint=\"chat_completions\",model=\"test\",status=\"2xx\"} 1",
        "forebay_frontend_requests_in_flight{endpoint=\"chat_completions\"} 0",
        "forebay_frontend_time_to_first_token_seconds_count{model=\"test\"} 1",
        "forebay_frontend_inter_token_latency_seconds_count{model=\"test\"} 0",
        "forebay_frontend_request_duration_seconds_count{endpoint=\"chat_completions\"} 1",
    ] {
        assert!(
            server.has_metric(line),
            "{line}\n{}",
            server.process.metrics.encode()
        );
    }
}

#[tokio::test]
async fn a_long_body_is_read_elsewhere_and_means_the_same() {
    let engine = ScriptedEngine::saying("ok");
    let server = Server::start(engine.clone()).await;
    let head = format!("POST {PATH} HTTP/1.1\r\ncontent-type: application/json\r\n");
    let body = chat(json!({})).to_string() + &" ".repeat(100_000);
    assert_eq!(send(server.address, &head, &body).await.status, 200);
    assert!(server.has_metric(
        "forebay_tasks_ended_total{kind=\"request\",task=\"tokenize\",end=\"finished\"} 1"
    ));
}

#[tokio::test]
async fn a_conversation_beyond_the_context_is_refused() {
    let engine = ScriptedEngine::saying("ok");
    let server = Server::start(engine.clone()).await;
    let long = "x".repeat(5000);
    let body = json!({"model": "test", "messages": [{"role": "user", "content": long}]});
    let response = post(server.address, PATH, &body).await;
    response.assert_error(400, "context_length_exceeded", Some("messages"));
    let message = response.json()["error"]["message"].to_string();
    assert!(message.contains("200 tokens"), "{message}");
    assert!(engine.requests().is_empty());
}

#[tokio::test]
async fn nothing_is_lost_of_much_that_is_ready_together() {
    let text: &'static str = "abcdefghij".repeat(15).leak();
    let server = Server::start(ScriptedEngine::saying(text)).await;
    let answer = post(server.address, PATH, &chat(json!({"n": 8})))
        .await
        .json();
    for choice in answer["choices"].as_array().unwrap() {
        assert_eq!(choice["message"]["content"], text);
    }
    assert_eq!(answer["usage"]["completion_tokens"], 8 * 150);
}
