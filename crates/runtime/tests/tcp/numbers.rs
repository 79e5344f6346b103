//! Streams of numbers, in which a lost, repeated or changed frame shows.

use std::sync::Arc;

use bytes::Bytes;
use forebay_protocols::Error;
use forebay_runtime::{ResponseStream, StreamHandler, StreamRequest};
use futures::{StreamExt as _, stream};
use tokio::sync::watch;

use crate::in_time;

/// What a client asks of [`Numbers`].
pub(crate) const ENDLESS: &str = "endless";
pub(crate) const ECHO: &str = "echo";
pub(crate) const NOTHING: &str = "nothing";

/// Answers with numbers without an end, with what the client says, or with one number and then
/// nothing.
#[derive(Clone)]
pub(crate) struct Numbers {
    /// Streams that run.
    pub(crate) running: Arc<watch::Sender<usize>>,
    /// Streams that ever began.
    pub(crate) begun: Arc<watch::Sender<usize>>,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        Self {
            running: Arc::new(watch::Sender::new(0)),
            begun: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Waits until so many streams run.
    pub(crate) async fn run(&self, count: usize) {
        let mut running = self.running.subscribe();
        in_time(running.wait_for(|running| *running == count))
            .await
            .unwrap();
    }
}

impl StreamHandler for Numbers {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        self.begun.send_modify(|count| *count += 1);
        let running = Running::new(self.running.clone());
        let frames = match std::str::from_utf8(&request.first).unwrap() {
            ENDLESS => stream::unfold(0, |number| async move {
                tokio::task::yield_now().await;
                Some((frame(number), number + 1))
            })
            .boxed(),
            ECHO => request.rest,
            _ => stream::iter([frame(0)]).chain(stream::pending()).boxed(),
        };
        frames
            .map(move |frame| {
                let _: &Running = &running;
                Ok(frame)
            })
            .boxed()
    }
}

struct Running(Arc<watch::Sender<usize>>);

impl Running {
    fn new(count: Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A frame of some size that holds a number.
pub(crate) fn frame(number: u64) -> Bytes {
    let size = 8 + usize::try_from(number % 300).unwrap();
    let mut frame = vec![0; size];
    frame[..8].copy_from_slice(&number.to_le_bytes());
    frame.into()
}

pub(crate) fn request(text: &'static str) -> StreamRequest {
    StreamRequest::of(Bytes::from_static(text.as_bytes()))
}

/// Reads the frames of these numbers.
pub(crate) async fn read(answer: &mut ResponseStream, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let item = in_time(answer.next()).await.expect("the answer ended");
        assert_eq!(item.expect("the answer failed"), frame(number));
    }
}

/// The error that an answer ends with, after whatever comes before it.
pub(crate) async fn failure(mut answer: ResponseStream) -> Error {
    loop {
        match in_time(answer.next()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error,
            None => panic!("an answer that must fail ended well"),
        }
    }
}
