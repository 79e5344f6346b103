//! KV events' messages, as `forebay_mux::events` has them.

use std::iter;

use bytes::Bytes;
use forebay_mux::events::{KvBatch, KvMark, KvPosition, KvSync, KvSyncAnswer};
use forebay_protocols::{Error, worker};
use forebay_tokens::{DpRank, KvEvent};

use super::frames::{broken, encode};

/// What was published.
#[derive(Debug)]
pub(super) enum Published {
    Batch(KvBatch),
    /// Only where the publisher is.
    Mark(KvMark),
}

pub(super) fn encode_batch(batch: &KvBatch) -> Bytes {
    encode(&write_events(batch.rank, &batch.events, Some(batch.mark)))
}

pub(super) fn encode_mark(mark: KvMark) -> Bytes {
    encode(&worker::KvEventBatch {
        mark: Some(write_mark(mark)),
        ..Default::default()
    })
}

/// The frames of an answer, each made as it is asked for, which takes time.
pub(super) type SyncFrames = Box<dyn Iterator<Item = Bytes> + Send>;

/// The ledger's answer as frames.
pub(super) fn encode_sync(sync: KvSync) -> SyncFrames {
    let head = encode(&worker::KvSync {
        mark: Some(write_mark(sync.mark)),
        is_snapshot: matches!(sync.answer, KvSyncAnswer::Snapshot(_)),
    });
    let head = iter::once(head);
    match sync.answer {
        KvSyncAnswer::Range(batches) => {
            let batches = batches.into_iter().map(|batch| encode_batch(&batch));
            Box::new(head.chain(batches))
        }
        KvSyncAnswer::Snapshot(snapshot) => {
            let part = |(rank, events): (_, Vec<_>)| encode(&write_events(rank, &events, None));
            Box::new(head.chain(snapshot.parts().map(part)))
        }
    }
}

/// Reads what a worker of so many data-parallel ranks published.
pub(super) fn read_published(
    message: worker::KvEventBatch,
    ranks: u32,
) -> Result<Published, Error> {
    match message.events.is_empty() {
        true => read_mark(message.mark).map(Published::Mark),
        false => read_batch(message, ranks).map(Published::Batch),
    }
}

pub(super) fn read_batch(message: worker::KvEventBatch, ranks: u32) -> Result<KvBatch, Error> {
    let mark = read_mark(message.mark)?;
    let (rank, events) = read_events(message, ranks)?;
    Ok(KvBatch { mark, rank, events })
}

/// The events of one of so many ranks, without those that this version does not know.
pub(super) fn read_events(
    message: worker::KvEventBatch,
    ranks: u32,
) -> Result<(DpRank, Vec<KvEvent>), Error> {
    if message.rank >= ranks {
        return Err(broken("KV events of a rank that the worker does not have"));
    }
    let known = |event| KvEvent::try_from(event).ok();
    let events = message.events.into_iter().filter_map(known).collect();
    Ok((DpRank(message.rank), events))
}

pub(super) fn read_mark(mark: Option<worker::KvMark>) -> Result<KvMark, Error> {
    let mark = mark.ok_or_else(|| broken("KV events without a mark"))?;
    let position = mark.position.unwrap_or_default();
    Ok(KvMark {
        position: read_position(position),
        digest: mark.digest,
    })
}

pub(super) fn read_position(position: worker::KvPosition) -> KvPosition {
    KvPosition {
        epoch: position.epoch,
        sequence: position.sequence,
    }
}

pub(super) fn write_position(position: KvPosition) -> worker::KvPosition {
    worker::KvPosition {
        epoch: position.epoch,
        sequence: position.sequence,
    }
}

fn write_mark(mark: KvMark) -> worker::KvMark {
    worker::KvMark {
        position: Some(write_position(mark.position)),
        digest: mark.digest,
    }
}

fn write_events(rank: DpRank, events: &[KvEvent], mark: Option<KvMark>) -> worker::KvEventBatch {
    worker::KvEventBatch {
        rank: rank.0,
        events: events.iter().cloned().map(Into::into).collect(),
        mark: mark.map(write_mark),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_tokens::{CacheGroup, RoutingHash, Tier};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::frames::decode;
    use super::*;

    const RANKS: u32 = 4;

    fn hashes() -> impl Strategy<Value = Vec<RoutingHash>> {
        vec(any::<u64>().prop_map(RoutingHash), 1..5)
    }

    fn event() -> impl Strategy<Value = KvEvent> {
        let group = CacheGroup::default();
        prop_oneof![
            (any::<Option<u64>>(), hashes()).prop_map(move |(parent, blocks)| KvEvent::Stored {
                tier: Tier::G1,
                group,
                parent: parent.map(RoutingHash),
                blocks,
            }),
            hashes().prop_map(move |blocks| KvEvent::Removed {
                tier: Tier::G2,
                group,
                blocks,
            }),
            Just(KvEvent::Cleared { tier: Tier::G3 }),
        ]
    }

    fn batch() -> impl Strategy<Value = KvBatch> {
        let numbers = (any::<[u64; 3]>(), 0..RANKS);
        (numbers, vec(event(), 1..6)).prop_map(|((mark, rank), events)| KvBatch {
            mark: KvMark {
                position: KvPosition {
                    epoch: mark[0],
                    sequence: mark[1],
                },
                digest: mark[2],
            },
            rank: DpRank(rank),
            events,
        })
    }

    proptest! {
        #[test]
        fn batches_are_read_as_they_are_written(batch in batch()) {
            let read = read_published(decode(encode_batch(&batch)).unwrap(), RANKS);
            let Ok(Published::Batch(read)) = read else {
                panic!("it is a batch: {read:?}");
            };
            prop_assert_eq!(read, batch);
        }

        #[test]
        fn a_rank_that_the_worker_does_not_have_is_refused(batch in batch()) {
            let message = decode(encode_batch(&batch)).unwrap();
            prop_assert!(read_published(message, batch.rank.0).is_err());
        }

        #[test]
        fn any_bytes_are_understood_or_refused(bytes in vec(any::<u8>(), 0..80)) {
            if let Ok(message) = decode(bytes.into()) {
                let _ = read_published(message, RANKS);
            }
        }

        #[test]
        fn a_frame_that_was_changed_is_understood_or_refused(
            batch in batch(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = encode_batch(&batch).to_vec();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            if let Ok(message) = decode(bytes.into()) {
                let _ = read_published(message, RANKS);
            }
        }
    }
}
