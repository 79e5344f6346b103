//! How an error crosses a session.

use bytes::Bytes;
use forebay_mux::session::MAX_ERROR_BYTES;
use forebay_protocols::{Error, ErrorClass, worker};
use prost::Message as _;

/// The longest that each text of an error may be: all four fit, with what is between them.
const MAX_TEXT_BYTES: usize = MAX_ERROR_BYTES / 4 - 16;

/// An error as the bytes that end a stream. Texts that are too long for that are cut.
pub(crate) fn encode(error: Error) -> Bytes {
    let mut error = worker::Error::from(error);
    for text in [
        &mut error.reason,
        &mut error.message,
        &mut error.param,
        &mut error.diagnostic,
    ] {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    }
    error.encode_to_vec().into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_arrives_as_what_it_is() {
        let long = "ä".repeat(MAX_ERROR_BYTES);
        let error = Error::new(ErrorClass::Internal, "engine_failed", long.as_str())
            .with_diagnostic(long.as_str());
        let bytes = encode(error);
        assert!(bytes.len() <= MAX_ERROR_BYTES, "{}", bytes.len());
        let error = decode(&bytes);
        assert_eq!(error.reason, "engine_failed");
        assert!(error.diagnostic.is_some_and(|cut| long.starts_with(&cut)));
    }
}
