//! Streams of completions whose every token is known beforehand.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use forebay_mocker::{Answer, MockerConfig, one_token_words};
use forebay_protocols::worker::{GenerateRequest, SamplingParams};
use forebay_testkit::http::{self, Streaming};
use serde_json::{Value, json};

/// Tokens of a prompt: several blocks.
const PROMPT_TOKENS: u32 = 64;

/// The words that answers are made of, and the tokens that they are.
static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let words = one_token_words().map(|word| format!(" {word}"));
    words.collect()
});

fn word_tokens() -> Range<u32> {
    MockerConfig::default().answer_vocabulary()
}

/// A prompt that no other request of this process has.
fn prompt() -> Vec<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let words = word_tokens();
    let at =
        |place: u32| words.start + (number * 7 + place * (2 * number + 1)) % words.len() as u32;
    (0..PROMPT_TOKENS).map(at).collect()
}

/// What must be answered to a prompt, greedily.
fn expected(prompt: &[u32], tokens: usize) -> String {
    let words = word_tokens();
    let request = GenerateRequest {
        prompt_token_ids: prompt.to_vec(),
        sampling: Some(SamplingParams {
            temperature: Some(0.0),
            ..SamplingParams::default()
        }),
        ..GenerateRequest::default()
    };
    let answer = Answer::new(&request, words.clone());
    let tokens = (0..tokens).map(|position| answer.token(position) - words.start);
    tokens.map(|word| WORDS[word as usize].as_str()).collect()
}

/// How a stream ended.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With every token, once, in order, and with what belongs after them.
    Complete,
    /// With an error of the product's form, after a correct beginning: its code.
    Typed(String),
    /// In any other way: what a client must never see.
    Broken(String),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Typed(code) => write!(f, "typed error {code}"),
            Self::Broken(how) => write!(f, "BROKEN: {how}"),
        }
    }
}

/// A stream of a completion, checked as it comes.
pub(crate) struct Completion {
    expected: String,
    /// How much of it has come, in bytes.
    text: usize,
    tokens: usize,
    finished: bool,
    answer: Streaming,
}

impl Completion {
    /// Asks for so many tokens. The answer's head has come when this returns.
    pub(crate) fn open(frontend: SocketAddr, tokens: usize) -> Result<Self, End> {
        let prompt = prompt();
        let expected = expected(&prompt, tokens);
        let body = json!({
            "model": "mocker", "prompt": prompt, "max_tokens": tokens, "temperature": 0.0,
            "stream": true,
        });
        let answer = http::stream(frontend, "/v1/completions", &body.to_string())
            .map_err(|error| broken("no answer", &error))?;
        if answer.status == 200 {
            return Ok(Self {
                expected,
                text: 0,
                tokens: 0,
                finished: false,
                answer,
            });
        }
        let status = answer.status;
        let body = answer
            .rest()
            .map_err(|error| broken("half an answer", &error))?
            .body;
        let body: Value = serde_json::from_str(&body)
            .map_err(|_| End::Broken(format!("status {status}: {body}")))?;
        Err(typed(&body["error"]))
    }

    /// Reads until so many tokens have come in all.
    pub(crate) fn read(&mut self, tokens: usize) -> Result<(), End> {
        while self.tokens < tokens {
            self.next()?;
        }
        Ok(())
    }

    /// Reads to the end.
    pub(crate) fn end(mut self) -> End {
        loop {
            if let Err(end) = self.next() {
                return end;
            }
        }
    }

    fn next(&mut self) -> Result<(), End> {
        let event = match self.answer.event() {
            Ok(Some(event)) => event,
            Ok(None) => return Err(End::Broken(format!("ended after {} tokens", self.tokens))),
            Err(error) => return Err(broken(&format!("after {} tokens", self.tokens), &error)),
        };
        if event == "[DONE]" {
            let whole = self.finished && self.text == self.expected.len();
            return Err(match whole {
                true => End::Complete,
                false => End::Broken(format!("done after {} tokens", self.tokens)),
            });
        }
        let event: Value = serde_json::from_str(&event)
            .map_err(|_| End::Broken(format!("an event that is no JSON: {event}")))?;
        if let Some(error) = event.get("error") {
            return Err(typed(error));
        }
        let choice = &event["choices"][0];
        let text = choice["text"].as_str().unwrap_or_default();
        if !self.expected[self.text..].starts_with(text) {
            let (at, expected) = (self.tokens, &self.expected[self.text..]);
            return Err(End::Broken(format!(
                "{text:?} at token {at} of {expected:?}"
            )));
        }
        self.text += text.len();
        self.tokens += text.matches(' ').count();
        self.finished |= choice["finish_reason"] == "length";
        Ok(())
    }
}

fn typed(error: &Value) -> End {
    match error["code"].as_str() {
        Some(code) => End::Typed(code.to_owned()),
        None => End::Broken(format!("an error without a code: {error}")),
    }
}

fn broken(when: &str, error: &io::Error) -> End {
    End::Broken(format!("{when}: {error}"))
}

/// So many completions of so many tokens, each of which has begun.
pub(crate) fn streams(frontend: SocketAddr, count: usize, tokens: usize) -> Vec<Completion> {
    let open = |_| {
        let mut stream = Completion::open(frontend, tokens).unwrap();
        stream.read(20).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

/// Each comes to its end.
#[track_caller]
pub(crate) fn assert_complete(streams: Vec<Completion>) {
    for stream in streams {
        assert_eq!(stream.end(), End::Complete);
    }
}

/// Each ends early, with a typed error.
#[track_caller]
pub(crate) fn assert_typed(streams: Vec<Completion>) {
    for stream in streams {
        let end = stream.end();
        assert!(matches!(end, End::Typed(_)), "{end:?}");
    }
}
