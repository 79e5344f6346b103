use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{Error, ErrorClass};

/// Reads a request body.
///
/// # Errors
///
/// [`ErrorClass::InvalidRequest`]: `invalid_json` if the body is not JSON (nesting beyond 128
/// levels and invalid UTF-8 included), `missing_parameter` or `invalid_value` with the field's path
/// in `param` if it is not this type.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, error.inner())
    })?;
    json.end().map_err(|error| refusal(".", &error))?;
    Ok(value)
}

fn refusal(path: &str, error: &serde_json::Error) -> Error {
    let invalid =
        |reason: &'static str, message| Error::new(ErrorClass::InvalidRequest, reason, message);
    if error.classify() != Category::Data {
        return invalid(
            "invalid_json",
            format!("the body is not valid JSON: {error}"),
        );
    }
    // The position that serde_json appends says nothing to who built the JSON from objects.
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(&*message, |(message, _)| message);
    let named = |what| message.strip_prefix(what)?.strip_suffix('`');
    let missing = named("missing field `");
    let path = path.trim_start_matches('.');
    match (path, missing) {
        ("", Some(field)) => {
            invalid("missing_parameter", format!("{field}: is required")).with_param(field)
        }
        (path, Some(field)) => {
            let param = format!("{path}.{field}");
            invalid("missing_parameter", format!("{param}: is required")).with_param(param)
        }
        ("", None) if let Some(field) = named("duplicate field `") => {
            Error::invalid(field, "is given twice")
        }
        ("", None) if message.starts_with("invalid type") => {
            invalid("invalid_value", "the body must be a JSON object".to_owned())
        }
        ("", None) => invalid("invalid_value", message.to_owned()),
        (path, None) => Error::invalid(path, message),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::openai::{ChatCompletionRequest, CompletionRequest};

    fn chat(body: &str) -> Error {
        parse::<ChatCompletionRequest>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn errors_name_the_field() {
        let cases = [
            (r#"{"model":"m","messages":"oops"}"#, "messages"),
            (r#"{"model":"m"}"#, "messages"),
            (r#"{"messages":[]}"#, "model"),
            (
                r#"{"model":"m","messages":[{"content":"x"}]}"#,
                "messages[0].role",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":7}]}"#,
                "messages[0].content",
            ),
            (r#"{"model":"m","messages":[],"n":-1}"#, "n"),
            (
                r#"{"model":"m","messages":[],"max_tokens":99999999999}"#,
                "max_tokens",
            ),
            (
                r#"{"model":"m","messages":[],"temperature":"hot"}"#,
                "temperature",
            ),
            (r#"{"model":"m","messages":[],"stop":[1]}"#, "stop"),
            (r#"{"model":"m","messages":[],"model":"n"}"#, "model"),
        ];
        for (body, param) in cases {
            let error = chat(body);
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
            assert_eq!(error.class, ErrorClass::InvalidRequest);
        }
    }

    #[test]
    fn what_is_not_json_is_said_to_be_that() {
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        for body in [
            "",
            "{",
            "nonsense",
            r#"{"model":"m","messages":[]} trailing"#,
            &deep,
        ] {
            assert_eq!(
                chat(body).reason,
                "invalid_json",
                "{}",
                &body[..body.len().min(40)]
            );
        }
        let invalid_utf8 = b"{\"model\":\"\xff\",\"prompt\":\"x\"}";
        let error = parse::<CompletionRequest>(invalid_utf8).unwrap_err();
        assert_eq!(error.reason, "invalid_json");
    }
}
