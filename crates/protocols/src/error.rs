use std::borrow::Cow;
use std::time::Duration;

/// What kind of failure an error is: the closed set that every component of Forebay speaks.
///
/// Mapped to HTTP in one place ([`ErrorClass::http_status`]), so that one failure has one status
/// wherever it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request is malformed or out of range.
    InvalidRequest,
    /// No or unknown credentials.
    Unauthenticated,
    /// Known, but not allowed to.
    PermissionDenied,
    /// The model, or whatever was named, does not exist.
    NotFound,
    /// It contradicts what is already there.
    Conflict,
    /// The request is larger than a limit.
    TooLarge,
    /// Understood, but this deployment or engine cannot do it.
    Unsupported,
    /// The caller has used up its rate.
    RateLimited,
    /// All capacity is taken.
    CapacityExhausted,
    /// What should answer is not there now.
    Unavailable,
    /// An engine or peer broke its protocol.
    BackendProtocol,
    /// The time allowed is over.
    Deadline,
    /// Known to be missing.
    NotImplemented,
    /// A fault of Forebay's own.
    Internal,
    /// The caller gave up.
    Cancelled,
}

impl ErrorClass {
    /// Every class, in the order of declaration.
    pub const ALL: [Self; 15] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::Unsupported,
        Self::RateLimited,
        Self::CapacityExhausted,
        Self::Unavailable,
        Self::BackendProtocol,
        Self::Deadline,
        Self::NotImplemented,
        Self::Internal,
        Self::Cancelled,
    ];

    /// The class's name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::RateLimited => "rate_limited",
            Self::CapacityExhausted => "capacity_exhausted",
            Self::Unavailable => "unavailable",
            Self::BackendProtocol => "backend_protocol",
            Self::Deadline => "deadline",
            Self::NotImplemented => "not_implemented",
            Self::Internal => "internal",
            Self::Cancelled => "cancelled",
        }
    }

    /// The HTTP status. 499 is what proxies log for a client that left; no client sees it.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::Unsupported => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::BackendProtocol => 502,
            Self::CapacityExhausted | Self::Unavailable => 503,
            Self::Deadline => 504,
        }
    }

    /// OpenAI's `error.type` for the class.
    pub const fn openai_type(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::Unsupported | Self::NotFound | Self::TooLarge => {
                "invalid_request_error"
            }
            Self::Unauthenticated => "authentication_error",
            Self::PermissionDenied => "permission_error",
            Self::Conflict => "conflict_error",
            Self::RateLimited => "rate_limit_error",
            Self::CapacityExhausted | Self::Unavailable => "service_unavailable_error",
            Self::Deadline => "timeout_error",
            Self::NotImplemented => "not_implemented_error",
            Self::BackendProtocol | Self::Internal | Self::Cancelled => "server_error",
        }
    }
}

/// Why a request failed, in the one form that crosses components, wires and finally reaches the
/// client.
///
/// It says what failed, not what to do about it. [`Display`](std::fmt::Display) gives what the
/// client may see; the diagnostic is for operators and goes to logs only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Error {
    /// The kind of failure.
    pub class: ErrorClass,
    /// Stable and of low cardinality, such as `context_length_exceeded`: for code and metrics.
    pub reason: Cow<'static, str>,
    /// One sentence that may be shown to the client.
    pub message: String,
    /// The request's field that is wrong, such as `messages[0].content`.
    pub param: Option<String>,
    /// For operators only; may hold internals.
    pub diagnostic: Option<String>,
    /// When another try may succeed.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error of a class, with its stable reason and its client-safe message.
    pub fn new(
        class: ErrorClass,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            class,
            reason: reason.into(),
            message: message.into(),
            param: None,
            diagnostic: None,
            retry_after: None,
        }
    }

    /// A field whose value is wrong; the message is prefixed with the field's name.
    pub fn invalid(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let param = param.into();
        let error = Self::new(
            ErrorClass::InvalidRequest,
            "invalid_value",
            format!("{param}: {message}"),
        );
        error.with_param(param)
    }

    /// A field, or a value of one, that is understood but cannot be honoured.
    pub fn unsupported(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let param = param.into();
        let error = Self::new(
            ErrorClass::Unsupported,
            "unsupported_parameter",
            format!("{param}: {message}"),
        );
        error.with_param(param)
    }

    /// A fault of Forebay's own; the client learns no more than that.
    pub fn internal(diagnostic: impl Into<String>) -> Self {
        Self::new(
            ErrorClass::Internal,
            "internal_error",
            "an internal error occurred",
        )
        .with_diagnostic(diagnostic)
    }

    /// Names the request's field.
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds what an operator should know.
    pub fn with_diagnostic(mut self, diagnostic: impl Into<String>) -> Self {
        self.diagnostic = Some(diagnostic.into());
        self
    }

    /// Says when another try may succeed.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_field_and_keeps_its_diagnostic() {
        let error = Error::invalid("n", "must be at least 1").with_diagnostic("secret path");
        assert_eq!(error.to_string(), "n: must be at least 1");
        assert_eq!(error.param.as_deref(), Some("n"));
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn statuses_are_errors() {
        for class in ErrorClass::ALL {
            assert!((400..600).contains(&class.http_status()), "{class:?}");
        }
    }
}
