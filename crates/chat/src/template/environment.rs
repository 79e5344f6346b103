//! The Jinja dialect of Hugging Face chat templates.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::json;
use super::strftime::strftime;

/// An environment set as `transformers` sets Jinja's, whose renders may take `fuel` steps each.
pub(super) fn new(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(fuel));
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment
}

/// What `raise_exception` was called with; travels as the source of the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(
        Error::new(ErrorKind::InvalidOperation, "raised by the template")
            .with_source(Raised(message)),
    )
}

/// The message given to `raise_exception`, if that is what ended the render.
pub(super) fn raised_message(error: &Error) -> Option<String> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// `strftime_now` at a fixed time.
pub(super) fn strftime_at(unix_seconds: i64) -> Value {
    Value::from_function(move |format: &str| {
        strftime(unix_seconds, format).map_err(|directive| {
            let detail = format!("strftime_now does not know {directive}");
            Error::new(ErrorKind::InvalidOperation, detail)
        })
    })
}

/// `source` with `{% generation %}` blocks made transparent: they mark the assistant's text for
/// training masks, and are no part of Jinja.
pub(super) fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let name_start = tag.len() - tag.trim_start_matches(['-', '+', ' ', '\n', '\t']).len();
        let (margin, name) = tag.split_at(name_start);
        let length = name
            .find(|character: char| !character.is_alphabetic())
            .unwrap_or(name.len());
        let (name, after) = name.split_at(length);
        out.push_str(margin);
        out.push_str(match name {
            "generation" => "if true",
            "endgeneration" => "endif",
            other => other,
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_become_transparent() {
        let source = "{%- generation -%}a{% set generation = 1 %}{{ '%' }}{%endgeneration%} {%";
        assert_eq!(
            without_generation_blocks(source),
            "{%- if true -%}a{% set generation = 1 %}{{ '%' }}{%endif%} {%"
        );
    }
}
