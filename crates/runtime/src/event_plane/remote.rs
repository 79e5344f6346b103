//! Events over streams of a request plane: the publisher's process serves its topics, and whoever
//! subscribes opens a stream there.
//!
//! The first frame names the topic. The answer begins with an empty frame when the subscription is
//! made, and goes on with a frame for each event, or for what was lost: a byte that tells which, and
//! numbers of 64 bits, little-endian.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::WorkerId;
use futures::{StreamExt as _, stream};
use tokio::time::sleep;

use super::{Event, EventStream, InProcessEvents, Lagged, Stamp};
use crate::names::Topic;
use crate::planes::PlaneError;
use crate::request_plane::{ResponseStream, StreamHandler, StreamRequest};

const EVENT: u8 = 1;
const LAGGED: u8 = 2;
/// Before an event's payload: the kind, publisher, epoch and sequence.
const HEAD_BYTES: usize = 25;

/// Waits between attempts to subscribe again, in turn, in milliseconds; the last stays.
const BACK_OFF: [u64; 3] = [0, 100, 250];

/// Serves the topics of a process.
pub(crate) struct EventsHandler(pub(crate) InProcessEvents);

impl StreamHandler for EventsHandler {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        let topic = std::str::from_utf8(&request.first).ok();
        match topic.and_then(|topic| Topic::new(topic).ok()) {
            Some(topic) => {
                let events = self.0.subscription(&topic).map(encode);
                let made = stream::iter([Bytes::new()]);
                made.chain(events).map(Ok).boxed()
            }
            None => stream::iter([Err(no_topic())]).boxed(),
        }
    }
}

/// Opens a stream to an [`EventsHandler`].
pub(crate) type OpenSubscription = Arc<dyn Fn() -> ResponseStream + Send + Sync>;

/// Subscribes by streams that `open` makes. A stream that is lost is made anew, for as long as the
/// subscription lives, and what may have been missed meanwhile is told as [`Lagged`].
pub(crate) async fn subscribe_over(open: OpenSubscription) -> Result<EventStream, PlaneError> {
    let events = begin(&open).await.map_err(|error| {
        let told = error.diagnostic.clone().unwrap_or(error.message);
        PlaneError::Unreachable(told.into())
    })?;
    let subscription = Subscription {
        open,
        events: Some(events),
        attempts: 0,
    };
    Ok(stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await;
        Some((event, subscription))
    })
    .boxed())
}

/// Opens a stream and waits until it is a subscription.
async fn begin(open: &OpenSubscription) -> Result<ResponseStream, Error> {
    let mut events = open();
    match events.next().await {
        Some(made) => made.map(|_| events),
        None => Err(no_topic()),
    }
}

struct Subscription {
    open: OpenSubscription,
    events: Option<ResponseStream>,
    /// Those that failed in a row.
    attempts: usize,
}

impl Subscription {
    async fn next(&mut self) -> Result<Event, Lagged> {
        loop {
            let Some(events) = &mut self.events else {
                let wait = BACK_OFF[self.attempts.min(BACK_OFF.len() - 1)];
                sleep(Duration::from_millis(wait)).await;
                self.attempts += 1;
                self.events = begin(&self.open).await.ok();
                if self.events.is_some() {
                    self.attempts = 0;
                    return Err(Lagged { missed: 1 });
                }
                continue;
            };
            match events.next().await {
                Some(Ok(frame)) => {
                    if let Some(event) = decode(frame) {
                        return event;
                    }
                }
                _ => self.events = None,
            }
        }
    }
}

fn encode(event: Result<Event, Lagged>) -> Bytes {
    match event {
        Ok(Event { stamp, payload }) => {
            let mut frame = BytesMut::with_capacity(HEAD_BYTES + payload.len());
            frame.put_u8(EVENT);
            frame.put_u64_le(stamp.publisher.0);
            frame.put_u64_le(stamp.epoch);
            frame.put_u64_le(stamp.sequence);
            frame.put_slice(&payload);
            frame.freeze()
        }
        Err(Lagged { missed }) => {
            let mut frame = BytesMut::with_capacity(9);
            frame.put_u8(LAGGED);
            frame.put_u64_le(missed);
            frame.freeze()
        }
    }
}

/// What a frame tells; nothing, if it is newer than this program.
fn decode(mut frame: Bytes) -> Option<Result<Event, Lagged>> {
    match frame.first() {
        Some(&EVENT) if frame.len() >= HEAD_BYTES => {
            frame.advance(1);
            let stamp = Stamp {
                publisher: WorkerId(frame.get_u64_le()),
                epoch: frame.get_u64_le(),
                sequence: frame.get_u64_le(),
            };
            let payload = frame;
            Some(Ok(Event { stamp, payload }))
        }
        Some(&LAGGED) if frame.len() >= 9 => {
            frame.advance(1);
            let missed = frame.get_u64_le();
            Some(Err(Lagged { missed }))
        }
        _ => None,
    }
}

fn no_topic() -> Error {
    let message = "there is no such topic";
    Error::new(ErrorClass::InvalidRequest, "unknown_topic", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn events_are_read_as_they_are_written(
            numbers in any::<[u64; 3]>(),
            payload in prop::collection::vec(any::<u8>(), 0..100),
            missed in any::<u64>(),
        ) {
            let [publisher, epoch, sequence] = numbers;
            let publisher = WorkerId(publisher);
            let stamp = Stamp { publisher, epoch, sequence };
            let event = Ok(Event { stamp, payload: payload.into() });
            prop_assert_eq!(decode(encode(event.clone())), Some(event));
            let lagged = Err(Lagged { missed });
            prop_assert_eq!(decode(encode(lagged.clone())), Some(lagged));
        }

        #[test]
        fn foreign_bytes_are_no_events(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let is_known = matches!(bytes.first(), Some(&EVENT | &LAGGED));
            let decoded = decode(bytes.into());
            prop_assert!(decoded.is_none() || is_known);
        }
    }
}
