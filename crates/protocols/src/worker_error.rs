//! The error contract's form on the wire between workers and their clients.

use std::time::Duration;

use crate::{Error, ErrorClass, worker};

impl From<ErrorClass> for worker::ErrorClass {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::InvalidRequest => Self::InvalidRequest,
            ErrorClass::Unauthenticated => Self::Unauthenticated,
            ErrorClass::PermissionDenied => Self::PermissionDenied,
            ErrorClass::NotFound => Self::NotFound,
            ErrorClass::Conflict => Self::Conflict,
            ErrorClass::TooLarge => Self::TooLarge,
            ErrorClass::Unsupported => Self::Unsupported,
            ErrorClass::RateLimited => Self::RateLimited,
            ErrorClass::CapacityExhausted => Self::CapacityExhausted,
            ErrorClass::Unavailable => Self::Unavailable,
            ErrorClass::BackendProtocol => Self::BackendProtocol,
            ErrorClass::Deadline => Self::Deadline,
            ErrorClass::NotImplemented => Self::NotImplemented,
            ErrorClass::Internal => Self::Internal,
            ErrorClass::Cancelled => Self::Cancelled,
        }
    }
}

impl From<worker::ErrorClass> for ErrorClass {
    /// A class that this version does not know is a broken protocol.
    fn from(class: worker::ErrorClass) -> Self {
        match class {
            worker::ErrorClass::InvalidRequest => Self::InvalidRequest,
            worker::ErrorClass::Unauthenticated => Self::Unauthenticated,
            worker::ErrorClass::PermissionDenied => Self::PermissionDenied,
            worker::ErrorClass::NotFound => Self::NotFound,
            worker::ErrorClass::Conflict => Self::Conflict,
            worker::ErrorClass::TooLarge => Self::TooLarge,
            worker::ErrorClass::Unsupported => Self::Unsupported,
            worker::ErrorClass::RateLimited => Self::RateLimited,
            worker::ErrorClass::CapacityExhausted => Self::CapacityExhausted,
            worker::ErrorClass::Unavailable => Self::Unavailable,
            worker::ErrorClass::Unspecified | worker::ErrorClass::BackendProtocol => {
                Self::BackendProtocol
            }
            worker::ErrorClass::Deadline => Self::Deadline,
            worker::ErrorClass::NotImplemented => Self::NotImplemented,
            worker::ErrorClass::Internal => Self::Internal,
            worker::ErrorClass::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Error> for worker::Error {
    fn from(error: Error) -> Self {
        Self {
            class: worker::ErrorClass::from(error.class).into(),
            reason: error.reason.into_owned(),
            message: error.message,
            param: error.param.unwrap_or_default(),
            diagnostic: error.diagnostic.unwrap_or_default(),
            // At least 1, so that "at once" stays an advice.
            retry_after_ms: error.retry_after.map_or(0, |after| {
                u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1)
            }),
        }
    }
}

impl From<worker::Error> for Error {
    fn from(error: worker::Error) -> Self {
        let filled = |text: String| (!text.is_empty()).then_some(text);
        let mut result = Self::new(error.class().into(), error.reason, error.message);
        result.param = filled(error.param);
        result.diagnostic = filled(error.diagnostic);
        result.retry_after = match error.retry_after_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        };
        result
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn an_error_crosses_the_wire_whole() {
        for class in ErrorClass::ALL {
            let error = Error::new(class, "some_reason", "what the client sees")
                .with_param("stop[3]")
                .with_diagnostic("what the operator sees")
                .with_retry_after(Duration::from_millis(1500));
            let bytes = worker::Error::from(error.clone()).encode_to_vec();
            let back: Error = worker::Error::decode(&bytes[..]).unwrap().into();
            assert_eq!(back, error);
        }
        let bare = Error::new(ErrorClass::Internal, "x", "y");
        assert_eq!(Error::from(worker::Error::from(bare.clone())), bare);
    }

    #[test]
    fn a_class_of_the_future_is_a_broken_protocol() {
        let error = worker::Error {
            class: 999,
            ..Default::default()
        };
        assert_eq!(Error::from(error).class, ErrorClass::BackendProtocol);
    }
}
