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

/// A batch as its message.
pub(super) fn write_batch(batch: KvEventBatch) -> worker::KvEventBatch {
    worker::KvEventBatch {
        sequence: batch.sequence,
        rank: batch.rank.0,
        events: batch.events.into_iter().map(Into::into).collect(),
        mark: None,
    }
}

/// A batch from its message, without events that this version does not know.
pub(super) fn read_batch(batch: worker::KvEventBatch) -> KvEventBatch {
    let known = |event| KvEvent::try_from(event).ok();
    KvEventBatch {
        sequence: batch.sequence,
        rank: DpRank(batch.rank),
        events: batch.events.into_iter().filter_map(known).collect(),
    }
}
