use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// What is of interest in a chunk of a stream, or in a whole answer, of either route.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Chunk<'a> {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
    #[serde(borrow, default)]
    pub(crate) error: Option<ApiError<'a>>,
}

impl Chunk<'_> {
    /// Whether any choice brings text, reasoning or a part of a tool call.
    pub(crate) fn has_content(&self) -> bool {
        let parts = |choice: &Choice| {
            let message = choice.delta.as_ref().or(choice.message.as_ref());
            choice.text.0 || message.is_some_and(Message::has_content)
        };
        self.choices.iter().any(parts)
    }

    /// Whether any choice ends.
    pub(crate) fn finishes(&self) -> bool {
        self.choices.iter().any(|choice| choice.finish_reason.0)
    }
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Message>,
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    text: Present,
    #[serde(default)]
    finish_reason: Present,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    content: Present,
    #[serde(default)]
    reasoning_content: Present,
    #[serde(default)]
    reasoning: Present,
    #[serde(default)]
    refusal: Present,
    #[serde(default)]
    tool_calls: Present,
}

impl Message {
    fn has_content(&self) -> bool {
        self.content.0
            || self.reasoning_content.0
            || self.reasoning.0
            || self.refusal.0
            || self.tool_calls.0
    }
}

/// Tokens as the server counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Usage {
    #[serde(default)]
    pub(crate) prompt_tokens: u32,
    #[serde(default)]
    pub(crate) completion_tokens: u32,
    #[serde(default)]
    pub(crate) prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct PromptTokensDetails {
    #[serde(default)]
    pub(crate) cached_tokens: Option<u32>,
}

/// An error in the body of an answer: OpenAI's object, or a plain text.
#[derive(Debug, PartialEq)]
pub(crate) struct ApiError<'a> {
    /// The most specific name that it has: its code or its type.
    pub(crate) reason: Option<Cow<'a, str>>,
    pub(crate) message: Option<Cow<'a, str>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for ApiError<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form<'a> {
            #[serde(borrow)]
            Object(Object<'a>),
            Text(Cow<'a, str>),
            Other(IgnoredAny),
        }
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow, default)]
            code: Option<Code<'a>>,
            #[serde(borrow, default, rename = "type")]
            kind: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            message: Option<Cow<'a, str>>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Code<'a> {
            #[serde(borrow)]
            Text(Cow<'a, str>),
            // A status, which says no more than the response's own.
            Other(IgnoredAny),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Object(Object {
                code,
                kind,
                message,
            }) => Self {
                reason: match code {
                    Some(Code::Text(code)) => Some(code),
                    _ => kind,
                },
                message,
            },
            Form::Text(text) => Self {
                reason: None,
                message: Some(text),
            },
            Form::Other(_) => Self {
                reason: None,
                message: None,
            },
        })
    }
}

/// Whether a value is there and not empty: a text, a list or an object.
#[derive(Clone, Copy, Debug, Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PresentVisitor).map(Self)
    }
}

struct PresentVisitor;

impl<'de> Visitor<'de> for PresentVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(!text.is_empty())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut any = false;
        while items.next_element::<IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(any)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<bool, A::Error> {
        let mut any = false;
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(any)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chunk(text: &str) -> Chunk<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn content_is_found_in_every_form() {
        for text in [
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":null,"reasoning_content":"\n"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning":"a"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
            r#"{"choices":[{"text":"a","finish_reason":null}]}"#,
            r#"{"choices":[{"message":{"role":"assistant","content":"a"}}]}"#,
            r#"{"choices":[{"delta":{}},{"delta":{"content":"a"}}]}"#,
        ] {
            assert!(chunk(text).has_content(), "{text}");
            assert!(!chunk(text).finishes(), "{text}");
        }
        for text in [
            r#"{}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":null,"tool_calls":[]}}]}"#,
            r#"{"choices":[{"text":""}]}"#,
        ] {
            assert!(!chunk(text).has_content(), "{text}");
        }
    }

    #[test]
    fn usage_is_read_with_and_without_details() {
        let usage = |text| chunk(text).usage.unwrap();
        let full = usage(
            r#"{"choices":[],"usage":{"prompt_tokens":43,"total_tokens":51,"completion_tokens":8,
               "prompt_tokens_details":{"cached_tokens":16}}}"#,
        );
        assert_eq!((full.prompt_tokens, full.completion_tokens), (43, 8));
        assert_eq!(full.prompt_tokens_details.unwrap().cached_tokens, Some(16));
        let plain = usage(
            r#"{"usage":{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null}}"#,
        );
        assert_eq!(plain.prompt_tokens_details, None);
        assert!(chunk(r#"{"usage":null}"#).usage.is_none());
    }

    #[test]
    fn an_error_has_its_most_specific_name() {
        for (text, reason, message) in [
            (
                r#"{"error":{"message":"m","type":"t","code":"c"}}"#,
                Some("c"),
                Some("m"),
            ),
            (
                r#"{"error":{"message":"a \"b\"","type":"t","code":503}}"#,
                Some("t"),
                Some("a \"b\""),
            ),
            (
                r#"{"error":{"message":"m","type":null,"code":null}}"#,
                None,
                Some("m"),
            ),
            (r#"{"error":"m"}"#, None, Some("m")),
            (r#"{"error":7}"#, None, None),
        ] {
            let error = chunk(text).error.unwrap();
            assert_eq!(
                (error.reason.as_deref(), error.message.as_deref()),
                (reason, message)
            );
        }
        assert!(chunk(r#"{"error":null}"#).error.is_none());
    }
}
