use std::time::Duration;

use crate::chunk::{ApiError, Chunk, Usage};
use crate::connection::Receive;
use crate::failure::{Failure, FailureClass};
use crate::response::{Head, Part, ResponseReader};
use crate::sse::{Event, SseReader};

/// Most bytes of an answer that is not streamed.
const MAX_BODY_BYTES: usize = 64 << 20;

/// What an answer was, and when its parts came. Times are those given to [`AnswerReader::read`].
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// When the first text came; of an answer without any text, when it finished.
    pub(crate) first_token: Option<Duration>,
    /// When the last text came.
    pub(crate) last_token: Option<Duration>,
    /// When it was complete.
    pub(crate) end: Duration,
    /// Parts with text.
    pub(crate) content_chunks: u32,
    /// Time between parts with text.
    pub(crate) gaps: Vec<Duration>,
    pub(crate) usage: Option<Usage>,
    /// A finish reason came.
    pub(crate) has_finished: bool,
    /// The stream's last event came.
    pub(crate) is_done: bool,
}

/// Reads one answer from the bytes of a connection, without IO.
#[derive(Debug)]
pub(crate) struct AnswerReader {
    stream: bool,
    response: ResponseReader,
    events: SseReader,
    /// A body that is not a stream.
    body: Vec<u8>,
    head: Option<Head>,
    answer: Answer,
    /// The status was not 200: the answer is complete, and an error.
    refusal: Option<Failure>,
}

impl AnswerReader {
    /// For an answer that has to be a stream, or has to be none.
    pub(crate) fn new(stream: bool) -> Self {
        Self {
            stream,
            response: ResponseReader::new(),
            events: SseReader::default(),
            body: Vec::new(),
            head: None,
            answer: Answer::default(),
            refusal: None,
        }
    }

    /// The answer, after it was read to its end.
    pub(crate) fn into_answer(self) -> Result<Answer, Failure> {
        match self.refusal {
            None => Ok(self.answer),
            Some(failure) => Err(failure),
        }
    }

    fn is_event_stream(&self) -> bool {
        (self.head).is_some_and(|head| head.status == 200 && head.is_event_stream)
    }

    fn read_body(&mut self, now: Duration, body: &[u8]) -> Result<(), Failure> {
        if !self.is_event_stream() {
            self.body.extend_from_slice(body);
            if self.body.len() > MAX_BODY_BYTES {
                return Err(Failure::new(
                    FailureClass::Malformed,
                    "an answer of more than 64 MiB",
                ));
            }
            return Ok(());
        }
        let mut result = Ok(());
        let answer = &mut self.answer;
        let read = self.events.read(body, |event| {
            if result.is_ok() {
                result = answer.take_event(now, event);
            }
        });
        if read.is_err() {
            let detail = "an event of more than 16 MiB";
            return Err(Failure::new(FailureClass::Malformed, detail));
        }
        result
    }

    fn end(&mut self, now: Duration) -> Result<(), Failure> {
        let status = self.head.map_or(0, |head| head.status);
        if status != 200 {
            // The connection is as good as before.
            self.refusal = Some(http_failure(status, &self.body));
            return Ok(());
        }
        if self.is_event_stream() {
            return match &self.answer {
                answer if !answer.is_done => Err(Failure::new(
                    FailureClass::Truncated,
                    "the stream ended without [DONE]",
                )),
                answer if !answer.has_finished => Err(Failure::new(
                    FailureClass::Truncated,
                    "the stream ended without a finish reason",
                )),
                _ => Ok(()),
            };
        }
        let chunk: Chunk<'_> = serde_json::from_slice(&self.body)
            .map_err(|_| Failure::new(FailureClass::Malformed, "the answer is not JSON"))?;
        if let Some(error) = chunk.error {
            return Err(Failure::new(FailureClass::StreamError, name(error)));
        }
        if self.stream {
            let detail = "the answer is not streamed";
            return Err(Failure::new(FailureClass::Malformed, detail));
        }
        self.answer.usage = chunk.usage;
        self.answer.content_chunks = chunk.has_content().into();
        self.answer.end = now;
        Ok(())
    }
}

impl Receive for AnswerReader {
    fn read(&mut self, now: Duration, mut bytes: &[u8]) -> Result<bool, Failure> {
        while let Some(part) = self
            .response
            .read(&mut bytes)
            .map_err(|malformed| Failure::new(FailureClass::Malformed, malformed.0))?
        {
            match part {
                Part::Head(head) => self.head = Some(head),
                Part::Body(body) => self.read_body(now, body)?,
                Part::End => {
                    self.end(now)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// An answer that may end with its connection does so.
    fn closed(&mut self, now: Duration) -> Result<(), Failure> {
        if self.response.may_end() {
            return self.end(now);
        }
        let detail = match (self.head, self.answer.content_chunks) {
            (None, _) => "the connection ended before the answer",
            (Some(_), 0) => "the connection ended before the first token",
            (Some(_), _) => "the connection ended within the answer",
        };
        Err(Failure::new(FailureClass::Truncated, detail))
    }

    fn keep_alive(&self) -> bool {
        self.head.is_some_and(|head| head.keep_alive)
    }
}

impl Answer {
    fn take_event(&mut self, now: Duration, event: Event<'_>) -> Result<(), Failure> {
        if event.data == b"[DONE]" {
            if self.first_token.is_none() {
                self.first_token = self.last_token;
            }
            self.is_done = true;
            self.end = now;
            return Ok(());
        }
        let malformed = |_| Failure::new(FailureClass::Malformed, "an event is not JSON");
        let chunk: Chunk<'_> = serde_json::from_slice(event.data).map_err(malformed)?;
        let finishes = chunk.finishes();
        if chunk.has_content() {
            match self.last_token {
                Some(last) if self.content_chunks > 0 => self.gaps.push(now.saturating_sub(last)),
                _ => self.first_token = Some(now),
            }
            self.last_token = Some(now);
            self.content_chunks += 1;
        } else if finishes && self.last_token.is_none() {
            // An answer without text has no token to be seen but its end.
            self.last_token = Some(now);
        }
        self.has_finished |= finishes;
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        match chunk.error {
            Some(error) => Err(Failure::new(FailureClass::StreamError, name(error))),
            None if event.is_error => {
                Err(Failure::new(FailureClass::StreamError, "an error event"))
            }
            None => Ok(()),
        }
    }
}

/// What an error answer says: `503 no_worker_ready`.
fn http_failure(status: u16, body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<Chunk<'_>>(body)
        .ok()
        .and_then(|chunk| chunk.error)
        .map(name);
    let detail = match said {
        Some(name) => format!("{status} {name}"),
        None => status.to_string(),
    };
    Failure::new(FailureClass::Http, detail)
}

/// The error's name, or the beginning of its message.
fn name(error: ApiError<'_>) -> String {
    const MOST_CHARS: usize = 80;
    match error.reason.or(error.message) {
        Some(text) => (text.chars().take(MOST_CHARS))
            .map(|char| if char.is_control() { ' ' } else { char })
            .collect(),
        None => "an error without a name".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    const A: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    const ROLE: &str =
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &str =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Each piece arrives a millisecond after the one before; then the connection ends.
    fn read(stream: bool, pieces: &[&str]) -> Result<Answer, Failure> {
        let mut reader = AnswerReader::new(stream);
        for (now, piece) in (1..).zip(pieces) {
            if reader.read(ms(now), piece.as_bytes())? {
                return reader.into_answer();
            }
        }
        reader.closed(ms(100))?;
        reader.into_answer()
    }

    #[test]
    fn a_stream_has_its_times_and_its_usage() {
        let answer = read(true, &[STREAM, ROLE, A, &[A, STOP].concat(), USAGE, DONE]).unwrap();
        assert_eq!(answer.first_token, Some(ms(3)));
        assert_eq!(answer.last_token, Some(ms(4)));
        assert_eq!(answer.gaps, [ms(1)]);
        assert_eq!(answer.content_chunks, 2);
        assert_eq!(answer.end, ms(6));
        assert_eq!(answer.usage.unwrap().completion_tokens, 2);
    }

    #[test]
    fn an_answer_without_text_begins_when_it_finishes() {
        let answer = read(true, &[STREAM, ROLE, STOP, DONE]).unwrap();
        assert_eq!(
            (answer.first_token, answer.content_chunks),
            (Some(ms(3)), 0)
        );
        assert_eq!(answer.gaps, []);
    }

    #[test]
    fn a_whole_answer_has_its_end() {
        let body = r#"{"choices":[{"message":{"content":"a b"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let answer = read(false, &[JSON, body]).unwrap();
        assert_eq!((answer.first_token, answer.end), (None, ms(100)));
        assert_eq!(answer.usage.unwrap().completion_tokens, 2);
    }

    #[test]
    fn each_failure_has_its_class() {
        use FailureClass::{Http, Malformed, StreamError, Truncated};
        let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 47\r\n\r\n";
        let error = r#"{"error":{"message":"m","code":"no_worker_ready"}}"#;
        let error_event = "data: {\"error\":{\"message\":\"gone\",\"type\":\"unavailable\"}}\n\n";
        let unavailable = unavailable.replace("47", &error.len().to_string());
        for (stream, pieces, class, detail) in [
            (
                true,
                vec![&*unavailable, error],
                Http,
                "503 no_worker_ready",
            ),
            (
                true,
                vec!["HTTP/1.1 502 x\r\ncontent-length: 1\r\n\r\n", "x"],
                Http,
                "502",
            ),
            (
                true,
                vec![STREAM, A, error_event, DONE],
                StreamError,
                "unavailable",
            ),
            (
                true,
                vec![STREAM, "event: error\ndata: {}\n\n", DONE],
                StreamError,
                "an error event",
            ),
            (
                true,
                vec![STREAM, A, STOP],
                Truncated,
                "the stream ended without [DONE]",
            ),
            (
                true,
                vec![STREAM, A, DONE],
                Truncated,
                "the stream ended without a finish reason",
            ),
            (
                true,
                vec![STREAM, "data: a\n\n"],
                Malformed,
                "an event is not JSON",
            ),
            (
                true,
                vec![JSON, "{}"],
                Malformed,
                "the answer is not streamed",
            ),
            (false, vec![JSON, "x"], Malformed, "the answer is not JSON"),
            (false, vec![JSON, error], StreamError, "no_worker_ready"),
            (
                true,
                vec![],
                Truncated,
                "the connection ended before the answer",
            ),
            (true, vec!["x"], Malformed, "the head is not HTTP/1.1"),
            (
                true,
                vec!["HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"],
                Truncated,
                "the connection ended before the first token",
            ),
        ] {
            let failure = read(stream, &pieces).unwrap_err();
            assert_eq!(
                (failure.class, &*failure.detail),
                (class, detail),
                "{pieces:?}"
            );
        }
    }

    /// What a real server sent, in one piece and in single bytes.
    #[test]
    fn a_recorded_stream_of_vllm_is_read() {
        let text = include_str!("../../../testdata/vllm-0.32.0/http/chat_stream.txt");
        let (_, body) = text.split_once("transfer-encoding: chunked\n\n").unwrap();
        let (body, _) = body.split_once("### chunk").unwrap();
        let whole = read(true, &[STREAM, body]).unwrap();
        let bytes: Vec<&str> = body.split_inclusive(|_| true).collect();
        let single = read(true, &[&[STREAM][..], &bytes].concat()).unwrap();
        for answer in [whole, single] {
            assert_eq!(answer.content_chunks, 7);
            let usage = answer.usage.unwrap();
            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (43, 8));
        }
    }
}
