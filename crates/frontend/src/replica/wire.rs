//! Batches and snapshots as the messages of `router.proto`.

use bytes::Bytes;
use forebay_protocols::router::booking_event::Event;
use forebay_protocols::router::{self, router_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_router::{BookingBatch, BookingEvent, BookingSnapshot, SharedBooking, WorkerRank};
use forebay_tokens::{DpRank, RoutingHash, WorkerId};
use prost::Message;

/// Bookings in a part of a snapshot end when they have about so many hashes: an eighth of a
/// megabyte.
const PART_HASHES: usize = 16 << 10;
/// The largest batch that is read: one prompt may have a million blocks.
const MOST_BATCH_BYTES: usize = 9 << 20;
/// What is counted for a part of a snapshot beside its bytes: parts without bookings are not
/// without end either.
const PART_BYTES: usize = 64;
/// What is counted for a booking in it, which takes more here than on its way.
const BOOKING_BYTES: usize = 128;

pub(super) fn write_batch(batch: BookingBatch) -> Bytes {
    let events = batch.events.into_iter().map(|event| {
        let (id, event) = match event {
            BookingEvent::Booked(id, booking) => (id, Event::Booked(write_booking(booking))),
            BookingEvent::Changed {
                id,
                blocks,
                has_first_token,
            } => {
                let change = router::BookingChange {
                    blocks,
                    has_first_token,
                };
                (id, Event::Changed(change))
            }
            BookingEvent::Ended(id) => (id, Event::Ended(router::BookingEnd {})),
        };
        let event = Some(event);
        router::BookingEvent { id, event }
    });
    let batch = router::BookingBatch {
        sequence: batch.sequence,
        events: events.collect(),
        digest: batch.digest,
    };
    batch.encode_to_vec().into()
}

/// A batch, without events that this version does not know: what that makes of the bookings shows
/// in the digest.
pub(super) fn read_batch(bytes: &[u8]) -> Result<BookingBatch, Error> {
    if bytes.len() > MOST_BATCH_BYTES {
        return Err(too_large());
    }
    let batch = router::BookingBatch::decode(bytes).map_err(|error| broken(&error.to_string()))?;
    let events = batch.events.into_iter().filter_map(|event| {
        let id = event.id;
        Some(match event.event? {
            Event::Booked(booking) => BookingEvent::Booked(id, read_booking(booking)),
            Event::Changed(change) => BookingEvent::Changed {
                id,
                blocks: change.blocks,
                has_first_token: change.has_first_token,
            },
            Event::Ended(_) => BookingEvent::Ended(id),
        })
    });
    Ok(BookingBatch {
        sequence: batch.sequence,
        events: events.collect(),
        digest: batch.digest,
    })
}

/// The frame that asks for a snapshot.
pub(super) fn ask_snapshot() -> Bytes {
    let operation = Some(Operation::Snapshot(router::SnapshotRequest {}));
    let request = router::RouterRequest { operation };
    request.encode_to_vec().into()
}

/// Whether a frame asks for a snapshot, which is all there is to ask for.
pub(super) fn asks_snapshot(frame: &[u8]) -> Result<bool, Error> {
    let request = router::RouterRequest::decode(frame);
    let request = request.map_err(|error| broken(&error.to_string()))?;
    Ok(matches!(request.operation, Some(Operation::Snapshot(_))))
}

/// A snapshot in parts, at least one. Each is made when it is asked for.
pub(super) fn write_snapshot(
    sequence: u64,
    bookings: impl Iterator<Item = (u64, SharedBooking)>,
) -> impl Iterator<Item = Bytes> {
    let mut bookings = bookings.peekable();
    let mut is_first = true;
    std::iter::from_fn(move || {
        if !std::mem::take(&mut is_first) && bookings.peek().is_none() {
            return None;
        }
        let (mut part, mut hashes) = (Vec::new(), 0);
        while hashes < PART_HASHES
            && let Some((id, booking)) = bookings.next()
        {
            hashes += 1 + booking.chain.len();
            let booking = Some(write_booking(booking));
            part.push(router::NumberedBooking { id, booking });
        }
        let part = router::SnapshotPart {
            sequence,
            bookings: part,
        };
        Some(part.encode_to_vec().into())
    })
}

/// What came of a snapshot.
pub(super) struct Received {
    snapshot: Option<BookingSnapshot>,
    /// How much more may come.
    bytes_left: usize,
}

impl Received {
    /// Nothing came yet of what may have `most_bytes`.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            snapshot: None,
            bytes_left: most_bytes,
        }
    }

    /// Takes the next part.
    pub(super) fn take(&mut self, part: &[u8]) -> Result<(), Error> {
        self.count(part.len() + PART_BYTES)?;
        let part = router::SnapshotPart::decode(part);
        let part = part.map_err(|error| broken(&error.to_string()))?;
        self.count(part.bookings.len() * BOOKING_BYTES)?;
        let snapshot = self.snapshot.get_or_insert_default();
        snapshot.sequence = part.sequence;
        let bookings = part.bookings.into_iter();
        let bookings = bookings.filter_map(|numbered| {
            let booking = read_booking(numbered.booking?);
            Some((numbered.id, booking))
        });
        snapshot.bookings.extend(bookings);
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or_else(too_large)?;
        Ok(())
    }

    /// The snapshot, all parts of which came.
    pub(super) fn finish(self) -> Result<BookingSnapshot, Error> {
        (self.snapshot).ok_or_else(|| broken("a snapshot without a part"))
    }
}

/// The other side sends more than anyone has booked.
fn too_large() -> Error {
    let message = "a frontend's message is too large";
    Error::new(ErrorClass::BackendProtocol, "message_too_large", message)
}

/// The other side broke the protocol.
fn broken(diagnostic: &str) -> Error {
    let message = "a frontend's message could not be understood";
    Error::new(ErrorClass::BackendProtocol, "broken_protocol", message).with_diagnostic(diagnostic)
}

fn write_booking(booking: SharedBooking) -> router::Booking {
    router::Booking {
        worker: booking.at.worker.0,
        rank: booking.at.rank.0,
        chain: booking.chain.iter().map(|hash| hash.0).collect(),
        blocks: booking.blocks,
        prompt_tokens: booking.prompt_tokens,
        prefill_tokens: booking.prefill_tokens,
        has_first_token: booking.has_first_token,
    }
}

fn read_booking(booking: router::Booking) -> SharedBooking {
    SharedBooking {
        at: WorkerRank::new(WorkerId(booking.worker), DpRank(booking.rank)),
        chain: booking.chain.into_iter().map(RoutingHash).collect(),
        blocks: booking.blocks,
        prompt_tokens: booking.prompt_tokens,
        prefill_tokens: booking.prefill_tokens,
        has_first_token: booking.has_first_token,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Messages of another frontend, damaged or any bytes at all: what is read can be told on
        /// and is read again as the same, and a snapshot is never more than it may be.
        #[test]
        fn any_bytes_are_a_message_or_refused(
            is_noise: bool,
            noise in vec(any::<u8>(), 0..80),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let any_of = |bytes: Bytes| {
                let mut bytes = bytes.to_vec();
                for (at, byte) in &damage {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                if is_noise { noise.clone() } else { bytes }
            };
            let events = vec![
                BookingEvent::Booked(1, booking(2)),
                BookingEvent::Changed { id: 2, blocks: 9, has_first_token: false },
                BookingEvent::Ended(3),
            ];
            let batch = BookingBatch { sequence: 3, events, digest: Some(u64::MAX) };
            if let Ok(batch) = read_batch(&any_of(write_batch(batch))) {
                prop_assert_eq!(read_batch(&write_batch(batch.clone())).unwrap(), batch);
            }
            let bookings = (0..3).map(|id| (id, booking(1)));
            let part = write_snapshot(1, bookings).next().unwrap();
            let mut received = Received::new(4 * BOOKING_BYTES + PART_BYTES);
            if received.take(&any_of(part)).is_ok() {
                prop_assert!(received.finish().unwrap().bookings.len() <= 4);
            }
            let _ = asks_snapshot(&any_of(ask_snapshot()));
        }
    }

    fn booking(hashes: u64) -> SharedBooking {
        SharedBooking {
            at: WorkerRank::new(WorkerId(7), DpRank(1)),
            chain: (1..=hashes).map(RoutingHash).collect(),
            blocks: hashes + 1,
            prompt_tokens: 40,
            prefill_tokens: 24,
            has_first_token: true,
        }
    }

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let batch = BookingBatch {
            sequence: 3,
            events: vec![
                BookingEvent::Booked(1, booking(2)),
                BookingEvent::Changed {
                    id: 2,
                    blocks: 9,
                    has_first_token: false,
                },
                BookingEvent::Ended(3),
            ],
            digest: Some(u64::MAX),
        };
        assert_eq!(read_batch(&write_batch(batch.clone())).unwrap(), batch);
        assert!(read_batch(b"\xff").is_err());
    }

    #[test]
    fn a_batch_beyond_reason_is_refused() {
        let batch = |hashes| {
            write_batch(BookingBatch {
                sequence: 1,
                events: vec![BookingEvent::Booked(1, booking(hashes))],
                digest: None,
            })
        };
        read_batch(&batch(1 << 20)).unwrap();
        let error = read_batch(&batch(10 << 20)).unwrap_err();
        assert_eq!(error.reason, "message_too_large");
    }

    #[test]
    fn a_snapshot_of_small_bookings_is_bounded_by_what_they_take_here() {
        let bookings = (0..100).map(|id| (id, booking(0)));
        let part = write_snapshot(1, bookings).next().unwrap();
        let most = |bytes| Received::new(bytes).take(&part);
        most(100 * BOOKING_BYTES + part.len() + PART_BYTES).unwrap();
        let error = most(99 * BOOKING_BYTES).unwrap_err();
        assert_eq!(error.reason, "message_too_large");
    }

    #[test]
    fn an_answer_without_a_part_is_none() {
        assert!(Received::new(1).finish().is_err());
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written_in_however_many_parts() {
        for (bookings, parts) in [(0, 1), (1, 1), (5, 3)] {
            let bookings = (0..bookings).map(|id| (id, booking(PART_HASHES as u64 / 2)));
            let snapshot = BookingSnapshot {
                sequence: 8,
                bookings: bookings.collect(),
            };
            let written = write_snapshot(8, snapshot.bookings.clone().into_iter());
            let written: Vec<_> = written.collect();
            assert_eq!(written.len(), parts);
            let mut received = Received::new(1 << 20);
            for part in written {
                received.take(&part).unwrap();
            }
            let read = received.finish().unwrap();
            assert_eq!(read, snapshot);
        }
    }

    #[test]
    fn a_question_is_understood() {
        assert!(asks_snapshot(&ask_snapshot()).unwrap());
        assert!(!asks_snapshot(b"").unwrap());
        assert!(asks_snapshot(b"\xff").is_err());
    }
}
