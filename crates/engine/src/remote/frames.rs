//! Frames of the request plane and the event plane: one message each.

use bytes::Bytes;
use forebay_protocols::worker::{self, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{DpRank, KvEvent};
use prost::Message;

use crate::KvEventBatch;

/// A message as a frame.
pub(super) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The frame that asks a worker for something.
pub(super) fn ask(operation: Operation) -> Bytes {
    encode(&worker::WorkerRequest {
        operation: Some(operation),
    })
}

/// The message of a frame.
pub(super) fn decode<M: Message + Default>(frame: Bytes) -> Result<M, Error> {
    M::decode(&frame[..]).map_err(|error| broken(&error.to_string()))
}

/// The other side broke the protocol.
pub(super) fn broken(diagnostic: &str) -> Error {
    let message = "a worker's message could not be understood";
    Error::new(ErrorClass::BackendProtocol, "broken_protocol", message).with_diagnostic(diagnostic)
}

/// A batch as a message. The clone of `events` is the caller's to avoid.
pub(super) fn encode_batch(batch: KvEventBatch) -> Bytes {
    encode(&worker::KvEventBatch {
        sequence: batch.sequence,
        rank: batch.rank.0,
        events: batch.events.into_iter().map(Into::into).collect(),
    })
}

/// The batch of a frame, without events that this version does not know.
pub(super) fn decode_batch(frame: Bytes) -> Result<KvEventBatch, Error> {
    let batch: worker::KvEventBatch = decode(frame)?;
    let known = |event| KvEvent::try_from(event).ok();
    Ok(KvEventBatch {
        sequence: batch.sequence,
        rank: DpRank(batch.rank),
        events: batch.events.into_iter().filter_map(known).collect(),
    })
}
