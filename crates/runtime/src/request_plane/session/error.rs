//! How an error crosses a session.

use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass, worker};
use prost::Message as _;

/// An error as the bytes that end a stream.
pub(crate) fn encode(error: Error) -> Bytes {
    worker::Error::from(error).encode_to_vec().into()
}

/// The error that ended a stream.
pub(crate) fn decode(bytes: &[u8]) -> Error {
    match worker::Error::decode(bytes) {
        Ok(error) => error.into(),
        Err(error) => broken(&error.to_string()),
    }
}

/// The peer does not keep to the protocol.
pub(crate) fn broken(diagnostic: &str) -> Error {
    let message = "the connection to the worker broke";
    Error::new(ErrorClass::BackendProtocol, "broken_protocol", message).with_diagnostic(diagnostic)
}

/// A connection has as many streams as it may.
pub(crate) fn too_many_streams() -> Error {
    let message = "too many requests run at the worker";
    Error::new(ErrorClass::CapacityExhausted, "too_many_streams", message)
}

/// A frame is larger than the plane carries.
pub(crate) fn frame_too_large(bytes: usize) -> Error {
    let message = "the request or its answer is too large for the connection";
    Error::new(ErrorClass::TooLarge, "frame_too_large", message)
        .with_diagnostic(format!("a frame of {bytes} bytes"))
}
