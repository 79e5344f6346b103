//! Batches and snapshots as the messages of `router.proto`.

use bytes::Bytes;
use forebay_protocols::router::booking_event::Event;
use forebay_protocols::router::{self, router_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_router::{BookingBatch, BookingEvent, BookingSnapshot, SharedBooking, WorkerRank};
use forebay_tokens::{DpRank, RoutingHash, WorkerId};
use prost::Message;

/// Bookings in a part of a snapshot end when they have about so many hashes: half a megabyte.
const PART_HASHES: usize = 64 << 10;

/// The most bookings that another frontend is believed to have.
const MOST_BOOKINGS: usize = 1 << 20;

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

/// A snapshot in parts, at least one.
pub(super) fn write_snapshot(snapshot: BookingSnapshot) -> Vec<Bytes> {
    let sequence = snapshot.sequence;
    let mut bookings = snapshot.bookings.into_iter().peekable();
    let mut parts = Vec::new();
    loop {
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
        parts.push(part.encode_to_vec().into());
        if bookings.peek().is_none() {
            return parts;
        }
    }
}

/// Adds a part to what came of a snapshot before.
pub(super) fn read_part(part: &[u8], snapshot: &mut BookingSnapshot) -> Result<(), Error> {
    let part = router::SnapshotPart::decode(part).map_err(|error| broken(&error.to_string()))?;
    if snapshot.bookings.len() + part.bookings.len() > MOST_BOOKINGS {
        return Err(broken("too many bookings"));
    }
    snapshot.sequence = part.sequence;
    let bookings = part.bookings.into_iter();
    let bookings = bookings.filter_map(|numbered| {
        let booking = read_booking(numbered.booking?);
        Some((numbered.id, booking))
    });
    snapshot.bookings.extend(bookings);
    Ok(())
}

/// The other side broke the protocol.
pub(super) fn broken(diagnostic: &str) -> Error {
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
    use super::*;

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
    fn a_snapshot_is_read_as_it_was_written_in_however_many_parts() {
        for (bookings, parts) in [(0, 1), (1, 1), (5, 3)] {
            let bookings = (0..bookings).map(|id| (id, booking(PART_HASHES as u64 / 2)));
            let snapshot = BookingSnapshot {
                sequence: 8,
                bookings: bookings.collect(),
            };
            let written = write_snapshot(snapshot.clone());
            assert_eq!(written.len(), parts);
            let mut read = BookingSnapshot::default();
            for part in written {
                read_part(&part, &mut read).unwrap();
            }
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
