//! Equality with the answers of a real vLLM for the same model: its tokenizer, its template, and the
//! text of its streams.

use crate::support::{Model, capture, model, stream};
use forebay_chat::{ChatTemplate, Detokenizer, TemplateInput};
use forebay_tokens::TokenId;
use serde_json::Value;

fn ids(value: &Value) -> Vec<TokenId> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as TokenId)
        .collect()
}

/// Token ids of a chat request's prompt.
fn prompt_ids(model: &Model, request: &Value) -> Vec<TokenId> {
    let (bos, eos) = (model.tokenizer.bos_token(), model.tokenizer.eos_token());
    let input = TemplateInput {
        messages: request["messages"].as_array().unwrap(),
        add_generation_prompt: true,
        bos_token: bos.as_deref(),
        eos_token: eos.as_deref(),
        ..TemplateInput::default()
    };
    let prompt = ChatTemplate::new(&model.template)
        .unwrap()
        .render(&input)
        .unwrap();
    model.tokenizer.encode(&prompt, false).unwrap()
}

#[test]
fn chat_prompts_have_the_same_tokens() {
    for (name, answer) in [
        ("http/tokenize_chat", "/tokens"),
        ("http/chat", "/prompt_token_ids"),
        ("dummy_small/http/render_chat", "/token_ids"),
    ] {
        let (request, response) = capture(name);
        let expected = ids(response.pointer(answer).unwrap());
        assert_eq!(prompt_ids(model(), &request), expected, "{name}");
    }
}

#[test]
fn texts_have_the_same_tokens() {
    for (name, answer) in [
        ("http/tokenize_text", "/tokens"),
        ("http/tokenize_long", "/tokens"),
        ("dummy_small/http/render_completion", "/0/token_ids"),
    ] {
        let (request, response) = capture(name);
        let expected = ids(response.pointer(answer).unwrap());
        let prompt = request["prompt"].as_str().unwrap();
        assert_eq!(
            model().tokenizer.encode(prompt, true).unwrap(),
            expected,
            "{name}"
        );
    }
}

#[test]
fn tokens_have_the_same_text() {
    let tokenizer = &model().tokenizer;
    let (request, response) = capture("http/detokenize");
    let text = tokenizer.decode(&ids(&request["tokens"]), true).unwrap();
    assert_eq!(text, response["prompt"].as_str().unwrap());

    let (request, response) = capture("dummy_small/http/derender_chat");
    let tokens = ids(request
        .pointer("/generate_response/choices/0/token_ids")
        .unwrap());
    let content = response.pointer("/choices/0/message/content").unwrap();
    assert_eq!(
        tokenizer.decode(&tokens, true).unwrap(),
        content.as_str().unwrap()
    );

    // How entries of the vocabulary are written.
    let (_, response) = capture("http/tokenize_chat");
    for (id, entry) in ids(&response["tokens"])
        .iter()
        .zip(response["token_strs"].as_array().unwrap())
    {
        assert_eq!(tokenizer.token_to_id(entry.as_str().unwrap()), Some(*id));
    }
}

#[test]
fn log_probabilities_name_tokens_alike() {
    let (_, response) = capture("http/chat");
    let choice = &response["choices"][0];
    let entries = choice
        .pointer("/logprobs/content")
        .unwrap()
        .as_array()
        .unwrap();
    for (id, entry) in ids(&choice["token_ids"]).into_iter().zip(entries) {
        assert_eq!(
            model().tokenizer.token_text(id),
            entry["token"].as_str().unwrap()
        );
        let bytes: Vec<u64> = entry["bytes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|byte| byte.as_u64().unwrap())
            .collect();
        let ours: Vec<u64> = model()
            .tokenizer
            .token_bytes(id)
            .iter()
            .map(|&byte| byte.into())
            .collect();
        assert_eq!(ours, bytes);
    }
}

#[test]
fn streams_have_the_same_pieces() {
    for (name, text) in [
        ("http/chat_stream", "/choices/0/delta/content"),
        (
            "dummy_small/http/generate_text_mode_stream",
            "/choices/0/text",
        ),
    ] {
        let mut detokenizer = Detokenizer::new(&model().tokenizer, true);
        let mut pieces = 0;
        for chunk in stream(name) {
            let (Some(text), Some(tokens)) =
                (chunk.pointer(text), chunk.pointer("/choices/0/token_ids"))
            else {
                continue;
            };
            let mut piece = String::new();
            for id in ids(tokens) {
                detokenizer.push(id, &mut piece).unwrap();
            }
            assert_eq!(piece, text.as_str().unwrap(), "{name}");
            pieces += 1;
        }
        assert!(pieces >= 8, "{name} has {pieces} pieces");
    }
}

#[test]
fn special_tokens_and_template_are_the_same() {
    let (_, info) = capture("dummy_small/http/tokenizer_info");
    let Model {
        tokenizer,
        template,
        ..
    } = model();
    assert_eq!(template, info["chat_template"].as_str().unwrap());
    assert_eq!(tokenizer.bos_token().as_deref(), info["bos_token"].as_str());
    assert_eq!(tokenizer.eos_token().as_deref(), info["eos_token"].as_str());
    let special = info["added_tokens_decoder"].as_object().unwrap();
    for id in 0..tokenizer.vocab_size() as TokenId {
        let text = special
            .get(&id.to_string())
            .map(|text| text.as_str().unwrap());
        assert_eq!(tokenizer.is_special(id), text.is_some(), "token {id}");
        if let Some(text) = text {
            assert_eq!(tokenizer.token_to_id(text), Some(id));
        }
    }
}
