//! KV events' messages, as `forebay_mux::events` has them.

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

/// The ledger's answer as frames. It takes time.
pub(super) fn encode_sync(sync: KvSync) -> Vec<Bytes> {
    let head = worker::KvSync {
        mark: Some(write_mark(sync.mark)),
        is_snapshot: matches!(sync.answer, KvSyncAnswer::Snapshot(_)),
    };
    let mut frames = vec![encode(&head)];
    match sync.answer {
        KvSyncAnswer::Range(batches) => {
            frames.extend(batches.iter().map(|batch| encode_batch(batch)));
        }
        KvSyncAnswer::Snapshot(snapshot) => {
            let part = |(rank, events): (_, Vec<_>)| encode(&write_events(rank, &events, None));
            frames.extend(snapshot.parts().map(part));
        }
    }
    frames
}

pub(super) fn read_published(message: worker::KvEventBatch) -> Result<Published, Error> {
    match message.events.is_empty() {
        true => read_mark(message.mark).map(Published::Mark),
        false => read_batch(message).map(Published::Batch),
    }
}

pub(super) fn read_batch(message: worker::KvEventBatch) -> Result<KvBatch, Error> {
    let mark = read_mark(message.mark)?;
    let (rank, events) = read_events(message);
    Ok(KvBatch { mark, rank, events })
}

/// A rank's events, without those that this version does not know.
pub(super) fn read_events(message: worker::KvEventBatch) -> (DpRank, Vec<KvEvent>) {
    let known = |event| KvEvent::try_from(event).ok();
    let events = message.events.into_iter().filter_map(known).collect();
    (DpRank(message.rank), events)
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
