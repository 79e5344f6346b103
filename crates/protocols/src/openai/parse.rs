use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{Error, ErrorClass};

/// The most values of a request body, as [`has_more_values`] counts them.
///
/// Each takes up to 64 bytes once it is read, besides its text: this bounds the memory that a body
/// within its own limit can take.
pub const MAX_BODY_VALUES: usize = 1 << 20;

/// As how many values an array counts: what is set aside for its first elements.
const ARRAY: usize = 4;

/// As how many values an object counts: the smallest map takes several hundred bytes.
const OBJECT: usize = 16;

/// As how many values the name of a field counts, besides its value: a text, and its place in a map.
const NAME: usize = 3;

/// Reads a request body.
///
/// # Errors
///
/// [`ErrorClass::TooLarge`], `too_many_values`, if it has more than [`MAX_BODY_VALUES`].
/// [`ErrorClass::InvalidRequest`]: `invalid_json` if the body is not JSON (nesting beyond 128
/// levels and invalid UTF-8 included), `missing_parameter` or `invalid_value` with the field's path
/// in `param` if it is not this type.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    if has_more_values(body, MAX_BODY_VALUES) {
        let message = format!("the body has more than {MAX_BODY_VALUES} values");
        return Err(Error::new(ErrorClass::TooLarge, "too_many_values", message));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, error.inner())
    })?;
    json.end().map_err(|error| refusal(".", &error))?;
    Ok(value)
}

/// Whether the JSON of a body has more than `most` values: elements of arrays and fields of objects
/// at every level.
///
/// Values differ in what they take once they are read, so an array counts as 4 and an object as 16,
/// whatever is in them, and the name of a field as 3. Nothing is read, and nothing needs to be
/// valid.
pub fn has_more_values(body: &[u8], most: usize) -> bool {
    let mut values = 0;
    let mut rest = body;
    // Short bodies need no look.
    while values <= most && values + rest.len().saturating_mul(OBJECT) > most {
        match rest[0] {
            b'"' => {
                rest = after_string(&rest[1..]);
                continue;
            }
            // It parts two values; the first one is in what an array or object counts as.
            b',' => values += 1,
            b':' => values += NAME,
            b'[' => values += ARRAY,
            b'{' => values += OBJECT,
            _ => {}
        }
        rest = &rest[1..];
    }
    values > most
}

/// What follows a string of which `rest` is the inside.
fn after_string(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            None => return &[],
            Some(at) if rest[at] == b'"' => return &rest[at + 1..],
            // With what it escapes.
            Some(at) => rest = rest.get(at + 2..).unwrap_or_default(),
        }
    }
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
    fn values_are_counted_and_texts_are_not() {
        let cases = [
            ("7", 0),
            ("[1,2,3]", 6),
            (r#"{"a":1,"b":[2,3]}"#, 28),
            (r#"[",,,[[[{{{", "\",,,\\", 1]"#, 6),
            (r#"["\\",1,1]"#, 6),
            (r#"["unended, , ,"#, 4),
            (r#"["unended\"#, 4),
            ("[[],[]]", 13),
            ("[{},{}]", 37),
            (r#"{"a:b":"c:d"}"#, 19),
            (",,,,,,,,", 8),
        ];
        for (body, values) in cases {
            let padded = format!("{body}{}", " ".repeat(20));
            assert!(!has_more_values(padded.as_bytes(), values), "{body}");
            let fewer = values.checked_sub(1);
            let has_more = |most| has_more_values(padded.as_bytes(), most);
            assert!(fewer.is_none_or(has_more), "{body}");
        }
        let many = format!(
            r#"{{"model":"m","prompt":[{}1]}}"#,
            "1,".repeat(MAX_BODY_VALUES)
        );
        let error = parse::<CompletionRequest>(many.as_bytes()).unwrap_err();
        assert_eq!(error.reason, "too_many_values");
        let texts = format!(
            r#"{{"model":"m","prompt":"{}"}}"#,
            ",".repeat(4 * MAX_BODY_VALUES)
        );
        assert!(parse::<CompletionRequest>(texts.as_bytes()).is_ok());
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
