use serde_json::{Map, Value};

use crate::{Error, ErrorClass};

/// Fields of the OpenAI API that this frontend does not implement, each with the values that change
/// nothing about an answer and are therefore accepted.
type Neutral = fn(&Value) -> bool;

const ANY: Neutral = |_| true;
const NOTHING: Neutral = |value| match value {
    Value::Bool(on) => !on,
    Value::Array(items) => items.is_empty(),
    Value::Object(fields) => fields.is_empty(),
    Value::Null => true,
    Value::Number(_) | Value::String(_) => false,
};
const NEVER: Neutral = |_| false;

const UNIMPLEMENTED: &[(&str, Neutral)] = &[
    ("audio", NEVER),
    ("best_of", |value| value == 1),
    ("documents", NOTHING),
    ("echo", NOTHING),
    ("function_call", |value| value == "none" || value == "auto"),
    ("functions", NOTHING),
    ("guided_choice", NOTHING),
    ("guided_grammar", NEVER),
    ("guided_json", NEVER),
    ("guided_regex", NEVER),
    ("modalities", |value| *value == serde_json::json!(["text"])),
    ("parallel_tool_calls", ANY),
    ("prediction", NEVER),
    ("prompt_cache_key", ANY),
    ("prompt_logprobs", NEVER),
    ("reasoning_effort", |value| value == "none"),
    ("response_format", |value| value["type"] == "text"),
    ("safety_identifier", ANY),
    ("service_tier", |value| {
        value == "auto" || value == "default"
    }),
    ("store", NOTHING),
    ("structured_outputs", NEVER),
    ("suffix", |value| value == ""),
    ("tool_choice", |value| value == "none" || value == "auto"),
    ("tools", NOTHING),
    ("use_beam_search", NOTHING),
    ("verbosity", |value| value == "medium"),
    ("web_search_options", NEVER),
];

/// Refuses every field that would have changed the answer and cannot be honoured.
///
/// `null` is the same as absent. `known` are the fields that the request's type has, to find the
/// one that was meant.
pub(super) fn refuse(extra: &Map<String, Value>, known: &[&str]) -> Result<(), Error> {
    for (name, value) in extra {
        let field = UNIMPLEMENTED.iter().find(|(field, _)| field == name);
        match field {
            _ if value.is_null() => {}
            Some((_, neutral)) if neutral(value) => {}
            Some(_) => return Err(Error::unsupported(name, "is not supported by this server")),
            None => return Err(unknown(name, known)),
        }
    }
    Ok(())
}

/// The longest name that is compared with others and shown whole, in characters.
const NAME_CHARS: usize = 64;

fn unknown(name: &str, known: &[&str]) -> Error {
    // A name from outside may have any length, and the distance of two takes their product.
    let shown: String = name.chars().take(NAME_CHARS).collect();
    let fields = UNIMPLEMENTED.iter().map(|(field, _)| field).chain(known);
    let nearest = fields
        .map(|field| (strsim::damerau_levenshtein(field, &shown), field))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let message = match nearest {
        Some((_, field)) => format!("{shown}: unknown field; did you mean {field}?"),
        None => format!("{shown}: unknown field"),
    };
    Error::new(ErrorClass::InvalidRequest, "unknown_parameter", message).with_param(shown)
}
