//! What every server answers: an echo, tokens of an engine, or nothing at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_protocols::Error;
use forebay_runtime::{ResponseStream, StreamHandler, StreamRequest};
use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{MissedTickBehavior, interval};

/// How often the engine has a token for every stream.
const ITERATION: Duration = Duration::from_millis(1);

/// About what a token takes on the wire.
const TOKEN: Bytes = Bytes::from_static(&[7; 24]);

/// Tokens that a stream may be behind its engine.
const BEHIND: usize = 1024;

/// Asks for the same again.
pub(crate) fn echo() -> Bytes {
    Bytes::from_static(&[b'e'; 64])
}

/// Asks for so many tokens.
pub(crate) fn tokens(count: u32) -> Bytes {
    [&b"t"[..], &count.to_le_bytes()].concat().into()
}

/// Asks for a stream that stays open and says nothing but that it is.
pub(crate) fn idle() -> Bytes {
    Bytes::from_static(b"i")
}

/// Answers by what the first frame asks for.
#[derive(Clone)]
pub(crate) struct Answers {
    streams: Arc<Mutex<Vec<Decode>>>,
}

/// A stream of tokens: how many are left, and where they go.
struct Decode {
    left: u32,
    tokens: Sender<Bytes>,
}

impl Answers {
    /// Starts an engine, whose iteration gives one token to each of the streams.
    pub(crate) fn start() -> Self {
        let answers = Self {
            streams: Arc::default(),
        };
        let streams = answers.streams.clone();
        tokio::spawn(async move {
            let mut iterations = interval(ITERATION);
            iterations.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                iterations.tick().await;
                streams.lock().retain_mut(|decode| {
                    decode.left -= 1;
                    decode.tokens.try_send(TOKEN).is_ok() && decode.left > 0
                });
            }
        });
        answers
    }

    pub(crate) fn answer(&self, first: Bytes) -> BoxStream<'static, Bytes> {
        match first.first() {
            Some(b't') => {
                let count = first[1..].try_into().expect("a number of four bytes");
                let left = u32::from_le_bytes(count);
                let (tokens, stream) = mpsc::channel(BEHIND);
                self.streams.lock().push(Decode { left, tokens });
                stream::unfold(stream, |mut stream| async {
                    Some((stream.recv().await?, stream))
                })
                .boxed()
            }
            Some(b'i') => stream::iter([Bytes::from_static(b"i")])
                .chain(stream::pending())
                .boxed(),
            _ => stream::iter([first]).boxed(),
        }
    }
}

impl StreamHandler for Answers {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        self.answer(request.first).map(Ok::<_, Error>).boxed()
    }
}
