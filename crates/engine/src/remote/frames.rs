//! Frames of the request plane and the event plane: one message each.

use bytes::Bytes;
use forebay_protocols::worker::{self, worker_request::Operation};
use forebay_protocols::{Error, ErrorClass};
use prost::Message;

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
