//! Equality with prompts that Python's Jinja renders from published templates.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use forebay_chat::{ChatTemplate, TemplateError, TemplateInput};
use serde_json::Value;

#[test]
fn prompts_are_those_of_jinja() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/chat-templates");
    let mut compared = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let template = ChatTemplate::new(golden["template"].as_str().unwrap()).unwrap();
        for (number, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
            let input = TemplateInput {
                messages: case["messages"].as_array().unwrap(),
                add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap_or(true),
                tools: case["tools"].as_array().map(Vec::as_slice),
                bos_token: golden["bos_token"].as_str(),
                eos_token: golden["eos_token"].as_str(),
                now_unix_seconds: golden["now"].as_i64(),
                kwargs: case["kwargs"].as_object(),
                ..TemplateInput::default()
            };
            let context = format!("{} case {number}", path.display());
            match (template.render(&input), case["raised"].as_str()) {
                (Ok(prompt), None) => {
                    assert_eq!(prompt, case["prompt"].as_str().unwrap(), "{context}");
                }
                (Err(TemplateError::Raised(message)), Some(raised)) => {
                    assert_eq!(message, raised, "{context}");
                }
                (result, raised) => panic!("{context}: {result:?}, expected error: {raised:?}"),
            }
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared} prompts compared");
}
