//! Streams of completions, each read by a thread of its own that notes when what came.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forebay_testkit::http;

use crate::process::PATIENCE;

/// Tokens that a stream has got before a fault.
const BEFORE: usize = 20;

/// Streams that run.
pub(crate) struct Streams {
    readers: Vec<JoinHandle<Seen>>,
}

/// What a client saw of a stream.
pub(crate) struct Seen {
    /// When each token came.
    pub(crate) tokens: Vec<Instant>,
    /// When it ended, and whether with an error of the product's form.
    pub(crate) ended: Instant,
    pub(crate) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    Typed,
    /// The connection, without a word.
    Broken,
}

impl Streams {
    /// Opens so many of so many tokens, and returns when each has got some.
    pub(crate) fn open(frontend: SocketAddr, count: usize, tokens: usize) -> Self {
        let (begun, have_begun) = mpsc::channel();
        let start = |_| {
            let begun = begun.clone();
            thread::spawn(move || read(frontend, tokens, &begun))
        };
        let readers = (0..count).map(start).collect();
        for _ in 0..count {
            let begun = have_begun.recv_timeout(PATIENCE);
            begun.expect("a stream begins");
        }
        Self { readers }
    }

    /// Waits until all have ended.
    pub(crate) fn ends(self) -> Vec<Seen> {
        let join = |reader: JoinHandle<_>| reader.join().expect("a reader panics at nothing");
        self.readers.into_iter().map(join).collect()
    }
}

impl Seen {
    /// The longest time without a token of those that ended in a span of time, in milliseconds.
    pub(crate) fn longest_pause(&self, from: Instant, time: Duration) -> f64 {
        let pauses = self.tokens.windows(2);
        let pauses = pauses.filter(|pair| pair[1] > from && pair[1] < from + time);
        let longest = pauses.map(|pair| pair[1] - pair[0]).max();
        longest.unwrap_or_default().as_secs_f64() * 1e3
    }

    /// When the first token after a moment came, in milliseconds since then.
    pub(crate) fn goes_on_after(&self, moment: Instant) -> Option<f64> {
        let next = self.tokens.iter().find(|at| **at > moment)?;
        Some((*next - moment).as_secs_f64() * 1e3)
    }
}

/// A completion's request, of a prompt that no other has.
pub(crate) fn request(tokens: usize) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The vocabulary has 4,096 words after the byte tokens; these are digits of a number among them.
    let token = |place: u32| 300 + (number >> (3 * (place % 8)) & 7) + 8 * (place % 64);
    let prompt: Vec<_> = (0..64).map(|place| token(place).to_string()).collect();
    let prompt = prompt.join(",");
    format!(
        r#"{{"model": "mocker", "prompt": [{prompt}], "max_tokens": {tokens}, "temperature": 0, "stream": true}}"#
    )
}

fn read(frontend: SocketAddr, tokens: usize, begun: &Sender<()>) -> Seen {
    let mut seen = Seen {
        tokens: Vec::with_capacity(tokens),
        ended: Instant::now(),
        end: End::Broken,
    };
    let mut answer = http::stream(frontend, "/v1/completions", &request(tokens))
        .expect("it answers before anything is wrong");
    assert_eq!(answer.status, 200);
    while let Ok(Some(event)) = answer.event() {
        seen.ended = Instant::now();
        if event == "[DONE]" {
            seen.end = End::Complete;
            return seen;
        }
        if event.contains(r#""error""#) {
            seen.end = End::Typed;
            return seen;
        }
        seen.tokens.push(seen.ended);
        if seen.tokens.len() == BEFORE {
            // Whoever opened it is waiting.
            let _ = begun.send(());
        }
    }
    seen.ended = Instant::now();
    seen
}
