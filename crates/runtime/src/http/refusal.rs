use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use forebay_protocols::openai::ErrorEnvelope;
use forebay_protocols::{Error, ErrorClass};

/// An error as an HTTP response: its status, OpenAI's envelope, and `Retry-After` if it has one.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.class.http_status())
            .expect("every class has a valid status");
        Self { status, error }
    }
}

impl Refusal {
    /// What HTTP itself has a status for, and the error contract no class.
    pub fn of_http(status: StatusCode, reason: &'static str, message: String) -> Self {
        let error = Error::new(ErrorClass::InvalidRequest, reason, message);
        Self { status, error }
    }

    /// The response's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the envelope tells.
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let envelope = axum::Json(ErrorEnvelope::from(&self.error));
        let mut response = (self.status, envelope).into_response();
        if let Some(after) = self.error.retry_after {
            // Rounded up: not before.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_too_early() {
        for (millis, seconds) in [(1, "1"), (1000, "1"), (1001, "2")] {
            let error = Error::new(
                ErrorClass::CapacityExhausted,
                "queue_full",
                "the queue is full",
            )
            .with_retry_after(Duration::from_millis(millis));
            let response = Refusal::from(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
        }
    }
}
