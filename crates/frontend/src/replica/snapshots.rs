use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass};
use forebay_router::BookingSnapshot;
use forebay_runtime::{Instance, Planes, ResponseStream, StreamHandler, StreamRequest};
use futures::{StreamExt as _, stream};
use tokio::time::timeout;

use super::Owner;
use super::wire::{Received, ask_snapshot, asks_snapshot, write_snapshot};

/// How long another frontend may take for the next part of its snapshot.
const ANSWER: Duration = Duration::from_secs(10);
/// What a snapshot of another frontend may take in bytes: some 100,000 requests with long prompts
/// take a half of it.
const MOST_BYTES: usize = 256 << 20;

/// Answers other frontends that have missed something.
pub(super) struct Snapshots(pub(super) Arc<Owner>);

impl StreamHandler for Snapshots {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        match self.answer(&request.first) {
            // Each part is made when there is room for it on its way.
            Ok(parts) => stream::iter(parts).map(Ok).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}

impl Snapshots {
    fn answer(&self, asked: &[u8]) -> Result<impl Iterator<Item = Bytes> + Send + use<>, Error> {
        let snapshot = match asks_snapshot(asked)? {
            true => self.0.snapshot(),
            false => None,
        };
        let snapshot = snapshot.ok_or_else(|| {
            let message = "this frontend does not know the operation";
            Error::new(ErrorClass::Unsupported, "unknown_operation", message)
        })?;
        let sequence = snapshot.sequence();
        Ok(write_snapshot(sequence, snapshot.into_bookings()))
    }
}

/// Asks another frontend for all that it has booked.
pub(super) async fn fetch(planes: &Planes, instance: &Instance) -> Result<BookingSnapshot, Error> {
    let request = StreamRequest::of(ask_snapshot());
    receive(planes.requests.open(&instance.address, request), MOST_BYTES).await
}

async fn receive(mut parts: ResponseStream, most_bytes: usize) -> Result<BookingSnapshot, Error> {
    let mut received = Received::new(most_bytes);
    loop {
        let part = timeout(ANSWER, parts.next()).await;
        match part.map_err(|_| late())? {
            Some(part) => received.take(&part?)?,
            None => return received.finish(),
        }
    }
}

fn late() -> Error {
    let message = "a frontend takes too long to tell what it has booked";
    Error::new(ErrorClass::Deadline, "snapshot_deadline", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_router::{BookingId, SharedBooking};
    use forebay_tokens::WorkerId;
    use tokio::time::sleep;

    use super::*;

    /// The parts of a snapshot that another frontend gives.
    fn parts(bookings: u64) -> ResponseStream {
        let owner = Arc::new(Owner::telling());
        for id in 0..bookings {
            owner.booked(BookingId::new(owner.id(), id), || SharedBooking {
                at: WorkerId(1).into(),
                chain: vec![forebay_tokens::RoutingHash(7); 10_000].into(),
                blocks: 10_000,
                prompt_tokens: 160_000,
                prefill_tokens: 160_000,
                has_first_token: false,
            });
        }
        Snapshots(owner).handle(StreamRequest::of(ask_snapshot()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_snapshot_arrives_while_its_parts_do() {
        let slow = parts(20).then(|part| async {
            sleep(ANSWER / 2).await;
            part
        });
        let snapshot = receive(slow.boxed(), MOST_BYTES).await.unwrap();
        assert_eq!(snapshot.bookings.len(), 20);
        let silent = parts(1).chain(stream::pending());
        let error = receive(silent.boxed(), MOST_BYTES).await.unwrap_err();
        assert_eq!(error.reason, "snapshot_deadline");
    }

    #[tokio::test]
    async fn a_snapshot_without_end_is_refused() {
        let endless = stream::iter(std::iter::repeat_with(|| Ok(Bytes::new())));
        let error = receive(endless.boxed(), 4096).await.unwrap_err();
        assert_eq!(error.reason, "message_too_large");
        let error = receive(parts(20), 100_000).await.unwrap_err();
        assert_eq!(error.reason, "message_too_large");
    }

    #[tokio::test]
    async fn who_asks_for_something_else_is_told_so() {
        let owner = Arc::new(Owner::telling());
        let mut answer = Snapshots(owner).handle(StreamRequest::of(Bytes::new()));
        let error = answer.next().await.unwrap().unwrap_err();
        assert_eq!(error.class, ErrorClass::Unsupported);
    }
}
