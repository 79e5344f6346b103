//! What a worker answers to a follower of its KV events that has missed some.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::events::{KvAnswer, KvMark};
use forebay_protocols::{Error, ErrorClass, worker};
use forebay_runtime::ResponseStream;
use futures::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::frames::{broken, decode};
use super::kv_frames::{read_batch, read_events, read_mark};

/// How long a worker may take for the next part of its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long others wait for a worker that has not begun to answer.
const TURN_LIMIT: Duration = Duration::from_millis(250);
/// What a worker's answer may have in bytes: a snapshot of ten million blocks has less.
const MOST_ANSWER_BYTES: usize = 512 << 20;
/// What is counted for a frame beside its bytes: small frames are not without end either.
const FRAME_BYTES: usize = 64;

/// Bounds how many workers tell at a time what is missing of their KV events, to all who follow
/// with clones of one of these. Others wait for their turn; a worker that does not begin to answer
/// within 250 ms loses its own, and has the next that is free once it does.
#[derive(Clone)]
pub struct KvRepairs(Arc<Semaphore>);

impl KvRepairs {
    /// At most `limit` at a time, at least 1.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit.max(1))))
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.0.acquire().await;
        turn.expect("the semaphore is never closed")
    }
}

impl Default for KvRepairs {
    /// At most 16.
    fn default() -> Self {
        Self::new(16)
    }
}

impl fmt::Debug for KvRepairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KvRepairs")
            .field(&self.0.available_permits())
            .finish()
    }
}

/// Asks a worker of so many data-parallel ranks by `open`, and takes its answer, when it is its
/// turn.
pub(super) async fn receive(
    open: impl FnOnce() -> ResponseStream,
    ranks: u32,
    repairs: &KvRepairs,
) -> Result<KvAnswer, Error> {
    let mut turn = repairs.turn().await;
    let mut answer = Answer::new(open(), ranks, MOST_ANSWER_BYTES);
    let head = {
        let mut head = pin!(answer.head());
        match timeout(TURN_LIMIT, &mut head).await {
            Ok(head) => head?,
            Err(_) => {
                drop(turn);
                let head = head.await?;
                turn = repairs.turn().await;
                head
            }
        }
    };
    let answer = answer.rest(head).await;
    drop(turn);
    answer
}

/// What an answer begins with.
struct Head {
    mark: KvMark,
    is_snapshot: bool,
}

/// A worker's answer on its way.
struct Answer {
    frames: ResponseStream,
    ranks: u32,
    /// How much more may come.
    bytes_left: usize,
}

impl Answer {
    fn new(frames: ResponseStream, ranks: u32, most_bytes: usize) -> Self {
        Self {
            frames,
            ranks,
            bytes_left: most_bytes,
        }
    }

    async fn head(&mut self) -> Result<Head, Error> {
        let head = self.next().await?;
        let head = head.ok_or_else(|| broken("an answer without a frame"))?;
        let head: worker::KvSync = decode(head)?;
        Ok(Head {
            mark: read_mark(head.mark)?,
            is_snapshot: head.is_snapshot,
        })
    }

    async fn rest(mut self, Head { mark, is_snapshot }: Head) -> Result<KvAnswer, Error> {
        if is_snapshot {
            let mut parts = Vec::new();
            while let Some(frame) = self.next().await? {
                parts.push(read_events(decode(frame)?, self.ranks)?);
            }
            return Ok(KvAnswer::Snapshot { mark, parts });
        }
        let mut batches = Vec::new();
        while let Some(frame) = self.next().await? {
            batches.push(read_batch(decode(frame)?, self.ranks)?);
        }
        Ok(KvAnswer::Range { mark, batches })
    }

    /// The next frame, if there is one.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let frame = timeout(ANSWER_LIMIT, self.frames.next()).await;
        let frame = frame.map_err(|_| late())?.transpose()?;
        let Some(frame) = frame else {
            return Ok(None);
        };
        let left = self.bytes_left.checked_sub(frame.len() + FRAME_BYTES);
        self.bytes_left = left.ok_or_else(too_large)?;
        Ok(Some(frame))
    }
}

fn late() -> Error {
    let message = "the worker takes too long to tell what it has cached";
    Error::new(ErrorClass::Deadline, "kv_sync_deadline", message)
}

fn too_large() -> Error {
    let message = "the worker tells more than it can have cached";
    Error::new(ErrorClass::BackendProtocol, "kv_sync_too_large", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream;
    use tokio::time::sleep;

    use super::super::frames::encode;
    use super::*;

    fn head(is_snapshot: bool) -> Bytes {
        let mark = Some(worker::KvMark::default());
        encode(&worker::KvSync { mark, is_snapshot })
    }

    fn part() -> Bytes {
        encode(&worker::KvEventBatch {
            mark: Some(worker::KvMark::default()),
            ..Default::default()
        })
    }

    async fn read(frames: ResponseStream) -> Result<KvAnswer, Error> {
        let mut answer = Answer::new(frames, 1, 1 << 16);
        let head = answer.head().await?;
        answer.rest(head).await
    }

    #[tokio::test]
    async fn an_answer_without_end_is_refused() {
        for is_snapshot in [true, false] {
            let parts = stream::repeat(part()).map(Ok);
            let frames = stream::iter([Ok(head(is_snapshot))]).chain(parts);
            let answer = read(frames.boxed()).await;
            assert_eq!(answer.unwrap_err().reason, "kv_sync_too_large");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_arrives_and_a_silent_one_does_not() {
        let frames = stream::iter(vec![Ok(head(true)), Ok(part()), Ok(part())]);
        let slow = frames.then(|frame| async {
            sleep(ANSWER_LIMIT / 2).await;
            frame
        });
        let repairs = KvRepairs::new(1);
        let answer = receive(|| slow.boxed(), 1, &repairs).await.unwrap();
        assert!(matches!(answer, KvAnswer::Snapshot { parts, .. } if parts.len() == 2));
        let silent = receive(|| stream::pending().boxed(), 1, &repairs).await;
        assert_eq!(silent.unwrap_err().reason, "kv_sync_deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn workers_that_do_not_answer_hold_up_none_that_do() {
        let repairs = KvRepairs::new(4);
        let silent = (0..40).map(|_| receive(|| stream::pending().boxed(), 1, &repairs));
        let healthy = receive(|| stream::iter([Ok(head(true))]).boxed(), 1, &repairs);
        tokio::select! {
            biased;
            _ = futures::future::select_all(silent.map(Box::pin)) => panic!("it was waited for"),
            answer = healthy => assert!(answer.is_ok()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_late_waits_for_its_turn_again() {
        let repairs = KvRepairs::new(1);
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = taken.clone();
        let begin = sleep(2 * TURN_LIMIT);
        let parts = stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(part())
        });
        let frames = stream::once(async {
            begin.await;
            Ok(head(true))
        });
        let late = receive(|| frames.chain(parts.take(3)).boxed(), 1, &repairs);
        let other = async {
            let turn = repairs.turn().await;
            sleep(ANSWER_LIMIT).await;
            assert_eq!(taken.load(Ordering::Relaxed), 0);
            drop(turn);
        };
        let (answer, ()) = tokio::join!(late, other);
        assert!(answer.is_ok());
        assert_eq!(taken.load(Ordering::Relaxed), 3);
    }
}
