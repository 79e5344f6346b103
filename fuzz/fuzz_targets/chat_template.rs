//! A model's template of any text, given messages of any text, and a known template given any JSON
//! for messages: a prompt within its bound or an error, after bounded work.

#![no_main]

use forebay_chat::{ChatTemplate, TemplateInput, TemplateLimits};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const LIMITS: TemplateLimits = TemplateLimits {
    fuel: 10_000,
    output_bytes: 64 << 10,
};

fuzz_target!(|text: &str| {
    // What comes before the first zero is the template.
    let (template, content) = text.split_once('\0').unwrap_or((text, "Hi"));
    let said = [
        json!({"role": "user", "content": content}),
        json!({"role": "assistant", "content": null, "tool_calls": [{"function": {
            "name": content, "arguments": content,
        }}]}),
    ];
    if let Ok(template) = ChatTemplate::with_limits(template, LIMITS) {
        render(&template, LIMITS, &said);
    }
    if let Ok(Value::Array(messages)) = serde_json::from_str(text) {
        render(
            &ChatTemplate::chatml(),
            TemplateLimits::default(),
            &messages,
        );
    }
});

fn render(template: &ChatTemplate, limits: TemplateLimits, messages: &[Value]) {
    let prompt = template.render(&TemplateInput {
        messages,
        add_generation_prompt: true,
        tools: Some(messages),
        bos_token: Some("<s>"),
        now_unix_seconds: Some(0),
        ..TemplateInput::default()
    });
    if let Ok(prompt) = prompt {
        assert!(prompt.len() <= limits.output_bytes);
    }
}
