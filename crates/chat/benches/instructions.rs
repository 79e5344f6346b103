//! Hot paths of the text side: what every token and every request pays.

use forebay_chat::{ChatTemplate, TemplateInput, TextDecoder, TextOptions, Tokenizer};
use forebay_testkit::instructions::{self, measured};

/// 512 byte tokens, some of them in characters of several bytes.
fn ids() -> Vec<u32> {
    let text = "Zwölf große Boxkämpfer jagen Viktor über den Deich: 漢字 и кириллица. ".repeat(7);
    text.bytes().take(512).map(u32::from).collect()
}

fn decode(stop: &[&str]) -> String {
    let tokenizer = Tokenizer::bytes();
    let options = TextOptions {
        stop: stop.iter().map(|&text| text.to_owned()).collect(),
        ..TextOptions::default()
    };
    let mut decoder = TextDecoder::new(&tokenizer, &options);
    let (ids, mut text) = (ids(), String::with_capacity(1024));
    measured(|| {
        for id in ids {
            let delta = decoder.push(&[id]).expect("a byte has text");
            text.push_str(&delta.text);
        }
    });
    text
}

fn detokenize() {
    assert!(decode(&[]).len() > 500);
}

fn detokenize_with_stops() {
    assert!(decode(&["\n\nUser:", "Deichgraf", "###"]).len() > 490);
}

fn render() {
    let template = ChatTemplate::chatml();
    let messages: Vec<_> = (0..16)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            serde_json::json!({"role": role, "content": "the quick brown fox ".repeat(20)})
        })
        .collect();
    let prompt = measured(|| {
        template.render(&TemplateInput {
            messages: &messages,
            add_generation_prompt: true,
            ..TemplateInput::default()
        })
    });
    assert!(prompt.is_ok_and(|prompt| prompt.len() > 16 * 400));
}

fn main() {
    instructions::main(&[
        ("detokenize_512", detokenize),
        ("detokenize_512_with_stops", detokenize_with_stops),
        ("render_16_turns", render),
    ]);
}
