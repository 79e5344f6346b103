use serde::Deserialize;

use crate::Error;

/// Tokens that one hash id of a trace stands for.
pub const TRACE_BLOCK_TOKENS: u32 = 512;

/// One request of a trace in Mooncake's format.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TraceRequest {
    /// When it arrived, in milliseconds from the trace's start.
    #[serde(rename = "timestamp")]
    pub timestamp_ms: u64,
    /// Prompt tokens.
    #[serde(rename = "input_length")]
    pub input_tokens: u32,
    /// Tokens of the answer.
    #[serde(rename = "output_length")]
    pub output_tokens: u32,
    /// One id for each [`TRACE_BLOCK_TOKENS`] prompt tokens, the last block possibly not full.
    /// Requests whose first ids are equal have that prefix in common.
    pub hash_ids: Vec<u64>,
}

/// A recorded load: requests in the order of their arrival.
///
/// Format: one JSON object a line with `timestamp` (ms), `input_length` and `output_length`
/// (tokens) and `hash_ids`, as published with "Mooncake: Trading More Storage for Less
/// Computation" (FAST '25). Other keys are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    requests: Vec<TraceRequest>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    ///
    /// [`Error::Trace`] names the first line that is not a request, whose time is before the
    /// line's above, that asks for no token, or whose ids do not cover its prompt; an empty trace
    /// is an error too.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut requests: Vec<TraceRequest> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let fault = |message: String| Error::Trace {
                line: number + 1,
                message,
            };
            let request: TraceRequest =
                serde_json::from_str(line).map_err(|error| fault(error.to_string()))?;
            let blocks = request.input_tokens.div_ceil(TRACE_BLOCK_TOKENS) as usize;
            if request.input_tokens == 0 || request.output_tokens == 0 {
                return Err(fault("a length is 0".into()));
            }
            if request.hash_ids.len() != blocks {
                return Err(fault(format!(
                    "{} tokens are {blocks} blocks, but there are {} hash ids",
                    request.input_tokens,
                    request.hash_ids.len()
                )));
            }
            if requests
                .last()
                .is_some_and(|last| last.timestamp_ms > request.timestamp_ms)
            {
                return Err(fault("its time is before the last line's".into()));
            }
            requests.push(request);
        }
        if requests.is_empty() {
            return Err(Error::Trace {
                line: 1,
                message: "no requests".into(),
            });
        }
        Ok(Self { requests })
    }

    /// The requests, in the order of their arrival; at least one.
    pub fn requests(&self) -> &[TraceRequest] {
        &self.requests
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named() {
        let good =
            r#"{"timestamp": 5, "input_length": 600, "output_length": 1, "hash_ids": [1, 2]}"#;
        let cases = [
            ("", 1, "no requests"),
            ("{}", 1, "missing field"),
            (&good.replace("[1, 2]", "[1]"), 1, "2 blocks"),
            (&good.replace("600", "0"), 1, "a length is 0"),
            (
                &format!("{good}\n\n{}", good.replace('5', "4")),
                3,
                "before the last",
            ),
        ];
        for (text, at, says) in cases {
            let Err(Error::Trace { line, message }) = Trace::parse(text) else {
                panic!("{text} was taken");
            };
            assert_eq!(line, at, "{text}");
            assert!(message.contains(says), "{message}");
        }
        assert!(Trace::parse(good).is_ok());
    }
}
