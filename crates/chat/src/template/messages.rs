//! Messages as a template expects them.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{ChatTemplate, TemplateInput};
use crate::TemplateError;

/// How a template takes a message's `content`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentForm {
    /// A text; a list of parts would appear in the prompt as it is written.
    Text,
    /// A text, or a list of parts, the texts of which it places.
    Either,
    /// Only a list of parts.
    Parts,
}

/// Finds a template's form of content by rendering a user message in both.
///
/// The part has a second field that no template shows; it appears when the list is written out.
pub(super) fn probe(template: &ChatTemplate) -> Result<ContentForm, TemplateError> {
    const TEXT: &str = "probe-of-text";
    const REST: &str = "probe-of-rest";
    let render = |content: Value| {
        let messages = [json!({"role": "user", "content": content})];
        let input = TemplateInput {
            messages: &messages,
            add_generation_prompt: true,
            bos_token: Some(""),
            eos_token: Some(""),
            now_unix_seconds: Some(0),
            ..TemplateInput::default()
        };
        template.render_as_given(&input)
    };
    let text = render(json!(TEXT));
    let parts = render(json!([{"type": "text", "text": TEXT, "probe": REST}]));

    let takes_text = text.as_ref().is_ok_and(|prompt| prompt.contains(TEXT));
    let takes_parts = parts
        .as_ref()
        .is_ok_and(|prompt| prompt.contains(TEXT) && !prompt.contains(REST));
    match (takes_text, takes_parts) {
        (true, true) => Ok(ContentForm::Either),
        (false, true) => Ok(ContentForm::Parts),
        (true, false) => Ok(ContentForm::Text),
        (false, false) => match text {
            Err(TemplateError::Render(error)) => Err(TemplateError::Broken(error)),
            // It refuses the message in its own words, for example for want of a system message.
            _ => Ok(ContentForm::Text),
        },
    }
}

/// The messages with `content` in the template's form and tool calls' arguments as values; as they
/// are, if that is so.
pub(super) fn prepare(
    messages: &[Value],
    form: ContentForm,
) -> Result<Cow<'_, [Value]>, TemplateError> {
    if messages.iter().all(|message| is_ready(message, form)) {
        return Ok(Cow::Borrowed(messages));
    }
    let prepared: Result<Vec<_>, _> = messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let invalid = |reason| TemplateError::InvalidMessage { index, reason };
            let mut message = message
                .as_object()
                .cloned()
                .ok_or(invalid("a message must be an object"))?;
            if !message.get("role").is_some_and(Value::is_string) {
                return Err(invalid("a message must have a role"));
            }
            // In its place: templates may write a message out.
            let content = message.entry("content").or_insert(Value::Null);
            *content = prepare_content(content.take(), form, index)?;
            if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
                for call in calls {
                    let function = call.get_mut("function").and_then(Value::as_object_mut);
                    let function = function.ok_or(invalid("a tool call must have a function"))?;
                    prepare_arguments(function)
                        .ok_or(invalid("a tool call's arguments must be JSON"))?;
                }
            }
            Ok(Value::Object(message))
        })
        .collect();
    prepared.map(Cow::Owned)
}

/// Whether nothing of a message must be changed or looked at.
fn is_ready(message: &Value, form: ContentForm) -> bool {
    let content_is_ready = match message.get("content") {
        Some(Value::String(_)) => form != ContentForm::Parts,
        Some(Value::Array(_)) => form != ContentForm::Text,
        _ => false,
    };
    let has_role = message.get("role").is_some_and(Value::is_string);
    content_is_ready && has_role && message.get("tool_calls").is_none()
}

fn prepare_content(
    content: Value,
    form: ContentForm,
    index: usize,
) -> Result<Value, TemplateError> {
    let invalid = |reason| TemplateError::InvalidMessage { index, reason };
    match (content, form) {
        (Value::Null, ContentForm::Parts) => Ok(json!([])),
        (Value::Null, _) => Ok(json!("")),
        (Value::String(text), ContentForm::Parts) => Ok(json!([{"type": "text", "text": text}])),
        (Value::Array(parts), ContentForm::Text) => {
            let texts = parts
                .iter()
                .map(|part| {
                    let kind = part.get("type").and_then(Value::as_str);
                    match (kind, part.get("text").and_then(Value::as_str)) {
                        (Some("text"), Some(text)) => Ok(text),
                        (Some(kind), None) if kind != "text" => {
                            Err(TemplateError::UnsupportedPart {
                                index,
                                kind: kind.to_owned(),
                            })
                        }
                        _ => Err(invalid("a content part must have a type and its value")),
                    }
                })
                .collect::<Result<Vec<_>, _>>()?;
            Ok(texts.join("\n").into())
        }
        (content @ (Value::String(_) | Value::Array(_)), _) => Ok(content),
        _ => Err(invalid("content must be a string or an array of parts")),
    }
}

/// Replaces arguments spelled as JSON in a string by their value; absent ones are an empty object.
fn prepare_arguments(function: &mut Map<String, Value>) -> Option<()> {
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) if !text.trim().is_empty() => serde_json::from_str(text).ok()?,
        None | Some(Value::Null | Value::String(_)) => json!({}),
        Some(_) => return Some(()),
    };
    function.insert("arguments".to_owned(), arguments);
    Some(())
}
