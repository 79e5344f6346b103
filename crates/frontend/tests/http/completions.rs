use serde_json::json;

use crate::client::post;
use crate::engine::{ScriptedEngine, say};
use crate::server::Server;

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn a_whole_answer() {
    let engine = ScriptedEngine::saying("a text that goes on for longer than sixteen tokens");
    let server = Server::start(engine.clone()).await;
    let body = json!({"model": "base", "prompt": "Once"});
    let answer = post(server.address, PATH, &body).await.json();
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(
        answer["choices"],
        json!([{
            "index": 0,
            "text": "a text that goes",
            "logprobs": null,
            "finish_reason": "length",
        }])
    );
    assert_eq!(answer["usage"]["total_tokens"], 4 + 16);
    assert_eq!(engine.requests()[0].prompt_token_ids, [79, 110, 99, 101]);
}

#[tokio::test]
async fn every_form_of_prompt() {
    let engine = ScriptedEngine::new(|request| {
        let prompt = String::from_utf8(request.prompt_token_ids.iter().map(|&t| t as u8).collect());
        Ok(say(
            request,
            &format!("{}:{}", prompt.unwrap(), request.choice_index),
        ))
    });
    let server = Server::start(engine).await;
    let cases = [
        (json!("ab"), vec!["ab:0", "ab:1"]),
        (json!([97, 98]), vec!["ab:0", "ab:1"]),
        (json!(["ab", "c"]), vec!["ab:0", "ab:1", "c:2", "c:3"]),
        (json!([[97], [98, 99]]), vec!["a:0", "a:1", "bc:2", "bc:3"]),
    ];
    for (prompt, texts) in cases {
        let body = json!({"model": "base", "prompt": prompt, "n": 2});
        let answer = post(server.address, PATH, &body).await.json();
        let choices = answer["choices"].as_array().unwrap();
        let found: Vec<_> = choices
            .iter()
            .map(|c| c["text"].as_str().unwrap())
            .collect();
        assert_eq!(found, texts, "{prompt}");
        assert!(
            choices
                .iter()
                .zip(0..)
                .all(|(choice, index)| choice["index"] == index)
        );
    }
}

#[tokio::test]
async fn prompts_that_cannot_be() {
    let server = Server::start(ScriptedEngine::saying("ok")).await;
    let cases = [
        (json!(""), "invalid_value", "prompt"),
        (json!([]), "invalid_value", "prompt"),
        (json!(["a", ""]), "invalid_value", "prompt[1]"),
        (json!([65, 259]), "invalid_value", "prompt[1]"),
        (json!([[65], [66, 300]]), "invalid_value", "prompt[1][1]"),
        (json!(7), "invalid_value", "prompt"),
    ];
    for (prompt, code, param) in cases {
        let body = json!({"model": "base", "prompt": prompt});
        let response = post(server.address, PATH, &body).await;
        response.assert_error(400, code, Some(param));
    }
}

#[tokio::test]
async fn the_default_budget_yields_to_the_context_and_a_demand_does_not() {
    let engine = ScriptedEngine::saying("0123456789");
    let server = Server::start(engine.clone()).await;
    let prompt = "x".repeat(195);
    let body = json!({"model": "base", "prompt": prompt});
    let answer = post(server.address, PATH, &body).await.json();
    assert_eq!(answer["choices"][0]["text"], "01234");
    // Each prompt by itself.
    let body = json!({"model": "base", "prompt": [prompt, "x"]});
    let answer = post(server.address, PATH, &body).await.json();
    assert_eq!(answer["choices"][0]["text"], "01234");
    assert_eq!(answer["choices"][1]["text"], "0123456789");

    let body = json!({"model": "base", "prompt": prompt, "max_tokens": 6});
    let response = post(server.address, PATH, &body).await;
    response.assert_error(400, "context_length_exceeded", Some("prompt"));
    for length in [200, 201, 100_000] {
        let body = json!({"model": "base", "prompt": "x".repeat(length)});
        let response = post(server.address, PATH, &body).await;
        response.assert_error(400, "context_length_exceeded", Some("prompt"));
    }
    let body = json!({"model": "base", "prompt": ["x", "x".repeat(201)]});
    let response = post(server.address, PATH, &body).await;
    response.assert_error(400, "context_length_exceeded", Some("prompt[1]"));
}

#[tokio::test]
async fn log_probabilities_in_parallel_arrays() {
    let engine = ScriptedEngine::saying("aéb");
    let server = Server::start(engine).await;
    let body = json!({"model": "base", "prompt": "x", "logprobs": 1});
    let answer = post(server.address, PATH, &body).await.json();
    assert_eq!(
        answer["choices"][0]["logprobs"],
        json!({
            "tokens": ["a", "\u{fffd}", "\u{fffd}", "b"],
            "token_logprobs": [-0.5, -0.5, -0.5, -0.5],
            "top_logprobs": [
                {"?": -0.25, "a": -0.5},
                {"?": -0.25, "\u{fffd}": -0.5},
                {"?": -0.25, "\u{fffd}": -0.5},
                {"?": -0.25, "b": -0.5},
            ],
            "text_offset": [0, 1, 1, 2],
        })
    );
}

#[tokio::test]
async fn a_models_sampling_is_taken_where_the_client_does_not_say() {
    let engine = ScriptedEngine::saying("ok");
    let server = Server::start(engine.clone()).await;
    for (model, said) in [
        ("tuned", json!({})),
        ("tuned", json!({"temperature": 0, "top_p": 1})),
        ("base", json!({})),
    ] {
        let mut body = json!({"model": model, "prompt": "x"});
        body.as_object_mut()
            .unwrap()
            .extend(said.as_object().unwrap().clone());
        assert_eq!(post(server.address, PATH, &body).await.status, 200);
    }
    let sampling = engine.requests().into_iter().map(|request| {
        let sampling = request.sampling.unwrap();
        (sampling.temperature, sampling.top_p)
    });
    assert_eq!(
        sampling.collect::<Vec<_>>(),
        [
            (Some(0.25), Some(0.5)),
            (Some(0.0), Some(1.0)),
            (None, None)
        ]
    );
}

#[tokio::test]
async fn an_echoed_prompt_comes_first_in_every_choice() {
    let server = Server::start(ScriptedEngine::saying("-ok")).await;
    let cases = [
        (json!("ab"), vec!["ab-ok", "ab-ok"]),
        // Its special token has no text.
        (json!([97, 257, 98]), vec!["ab-ok", "ab-ok"]),
        (json!(["ab", "é"]), vec!["ab-ok", "ab-ok", "é-ok", "é-ok"]),
        (json!([[97], [98]]), vec!["a-ok", "a-ok", "b-ok", "b-ok"]),
    ];
    for (prompt, texts) in cases {
        let mut body = json!({"model": "base", "prompt": prompt, "n": 2, "echo": true});
        let answer = post(server.address, PATH, &body).await.json();
        let choices = answer["choices"].as_array().unwrap();
        let whole: Vec<_> = choices
            .iter()
            .map(|choice| choice["text"].as_str().unwrap())
            .collect();
        assert_eq!(whole, texts);

        body["stream"] = json!(true);
        let response = post(server.address, PATH, &body).await;
        let mut streamed = vec![String::new(); texts.len()];
        for event in response.events().iter().filter(|event| **event != "[DONE]") {
            let event: serde_json::Value = serde_json::from_str(event).unwrap();
            let choice = &event["choices"][0];
            let index = choice["index"].as_u64().unwrap() as usize;
            streamed[index].push_str(choice["text"].as_str().unwrap());
        }
        assert_eq!(streamed, texts);
    }
}

#[tokio::test]
async fn an_echo_is_no_stop_string() {
    let server = Server::start(ScriptedEngine::saying("a-b")).await;
    let body = json!({"model": "base", "prompt": "x-y", "echo": true, "stop": "-"});
    let answer = post(server.address, PATH, &body).await.json();
    assert_eq!(answer["choices"][0]["text"], "x-ya");
    let body = json!({"model": "base", "prompt": "x", "echo": true, "logprobs": 1});
    let response = post(server.address, PATH, &body).await;
    response.assert_error(400, "unsupported_parameter", Some("echo"));
}

#[tokio::test]
async fn a_bias_is_for_a_token_that_there_is() {
    let engine = ScriptedEngine::saying("ok");
    let server = Server::start(engine.clone()).await;
    let body = json!({"model": "base", "prompt": "x", "logit_bias": {"258": -100}});
    assert_eq!(post(server.address, PATH, &body).await.status, 200);
    let sampling = engine.requests()[0].sampling.clone().unwrap();
    assert_eq!(sampling.logit_bias[0].token_id, 258);
    let body = json!({"model": "base", "prompt": "x", "logit_bias": {"3": 1, "259": 1}});
    let response = post(server.address, PATH, &body).await;
    response.assert_error(400, "invalid_value", Some("logit_bias"));
}
