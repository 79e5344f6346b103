use std::io::Write as _;

use serde_json::{Map, Value, json};

use crate::config::{Api, BenchConfig};

/// One request as it goes over the wire.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Head and body.
    pub(crate) bytes: Vec<u8>,
    /// Tokens that the answer has to have.
    pub(crate) output_tokens: u32,
    body: Vec<u8>,
}

/// Writes requests: all that is the same in each of them is written once.
#[derive(Debug)]
pub(crate) struct RequestWriter {
    /// Up to the value of `content-length`.
    head: Vec<u8>,
    /// Up to the prompt.
    before: Vec<u8>,
    /// From the prompt to the number of tokens.
    after: &'static [u8],
    exact_length: bool,
}

impl RequestWriter {
    /// With `exact_length` the server is told to go on beyond an end of text.
    pub(crate) fn new(config: &BenchConfig, model: &str, exact_length: bool) -> Self {
        let mut head = head(config, "POST", config.api.route());
        head.extend_from_slice(b"content-type: application/json\r\ncontent-length: ");
        let mut fields = Map::new();
        fields.insert("model".into(), json!(model));
        fields.insert("stream".into(), json!(config.stream));
        if config.stream {
            fields.insert("stream_options".into(), json!({"include_usage": true}));
        }
        let mut before = Value::Object(fields).to_string().into_bytes();
        before.pop();
        let (prompt, after): (&[u8], &[u8]) = match config.api {
            Api::Chat => (
                b",\"messages\":[{\"role\":\"user\",\"content\":\"",
                b"\"}],\"max_tokens\":",
            ),
            Api::Completions => (b",\"prompt\":\"", b"\",\"max_tokens\":"),
        };
        before.extend_from_slice(prompt);
        Self {
            head,
            before,
            after,
            exact_length,
        }
    }

    /// Writes a request over what was in `prepared`; `prompt` appends its prompt and returns the
    /// length of the answer.
    pub(crate) fn write(&self, prepared: &mut Prepared, prompt: impl FnOnce(&mut Vec<u8>) -> u32) {
        let Prepared {
            bytes,
            output_tokens,
            body,
        } = prepared;
        body.clear();
        body.extend_from_slice(&self.before);
        *output_tokens = prompt(body);
        body.extend_from_slice(self.after);
        const FITS: &str = "a Vec takes every byte";
        if self.exact_length {
            write!(
                body,
                "{output_tokens},\"min_tokens\":{output_tokens},\"ignore_eos\":true}}"
            )
            .expect(FITS);
        } else {
            write!(body, "{output_tokens}}}").expect(FITS);
        }
        bytes.clear();
        bytes.extend_from_slice(&self.head);
        write!(bytes, "{}\r\n\r\n", body.len()).expect(FITS);
        bytes.extend_from_slice(body);
    }
}

/// A GET request.
pub(crate) fn get(config: &BenchConfig, route: &str) -> Vec<u8> {
    let mut bytes = head(config, "GET", route);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The request line and the headers that every request has.
fn head(config: &BenchConfig, method: &str, route: &str) -> Vec<u8> {
    let (path, host) = (config.target.path(route), config.target.authority());
    let version = env!("CARGO_PKG_VERSION");
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: forebay-bench/{version}\r\n\
         accept: application/json, text/event-stream\r\n"
    );
    for (name, value) in &config.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::prompt::{Prompts, TokenFit};

    fn written(config: &BenchConfig, exact_length: bool) -> (String, Value) {
        let writer = RequestWriter::new(config, "m\"1", exact_length);
        let prompts = Prompts::new(config.workload.clone(), TokenFit::ASSUMED, 0);
        let mut prepared = Prepared::default();
        for number in [1, 0] {
            writer.write(&mut prepared, |text| prompts.write(number, text));
        }
        let text = String::from_utf8(prepared.bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_chat_request_asks_for_its_length_and_its_usage() {
        let mut config = BenchConfig::new("http://[::1]:8000/v1".parse().unwrap());
        config.headers = vec![("authorization".into(), "Bearer x".into())];
        let (head, body) = written(&config, true);
        assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\nhost: [::1]:8000\r\n"));
        assert!(head.contains("\r\nauthorization: Bearer x\r\n"));
        assert_eq!(body["model"], "m\"1");
        assert_eq!(body["stream_options"]["include_usage"], true);
        for key in ["max_tokens", "min_tokens"] {
            assert_eq!(body[key], 64);
        }
        assert_eq!(body["ignore_eos"], true);
        let content = body["messages"][0]["content"].as_str().unwrap();
        assert_eq!(content.split_whitespace().count(), 128);
    }

    #[test]
    fn a_plain_completion_asks_for_no_more_than_the_api_has() {
        let mut config = BenchConfig::new("http://a".parse().unwrap());
        config.api = Api::Completions;
        config.stream = false;
        let (head, body) = written(&config, false);
        assert!(head.starts_with("POST /v1/completions "));
        let mut keys: Vec<_> = body.as_object().unwrap().keys().collect();
        // Their order is that of a build with other crates, or not.
        keys.sort_unstable();
        assert_eq!(keys, ["max_tokens", "model", "prompt", "stream"]);
    }
}
