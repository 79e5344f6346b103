use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forebay_engine::Error;
use forebay_protocols::openai::ErrorEnvelope;

/// An error as a response.
pub(super) struct Refusal(pub(super) Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.class.http_status());
        let status = status.expect("every class has a valid status");
        (status, Json(ErrorEnvelope::from(&self.0))).into_response()
    }
}
