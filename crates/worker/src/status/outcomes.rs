use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forebay_engine::Error;
use forebay_protocols::openai::{ErrorBody, ErrorEnvelope};
use forebay_runtime::http::Refusal;
use forebay_tokens::WorkerId;
use serde::Serialize;

use super::metadata::hexadecimal;

/// What an operator's control came to, worker by worker.
///
/// As a response it is 200 if every worker did it. Else it has the status of the first error, and is
/// also that error's envelope: it may have been done by some.
pub(super) struct Outcomes {
    body: Body,
    status: StatusCode,
}

#[derive(Serialize)]
struct Body {
    workers: Vec<Outcome>,
    /// The first of the workers'.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

#[derive(Serialize)]
struct Outcome {
    worker: String,
    /// Why it did not do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

impl Outcomes {
    pub(super) fn of(all: impl IntoIterator<Item = (WorkerId, Result<(), Error>)>) -> Self {
        let (mut workers, mut first) = (Vec::new(), None);
        for (worker, outcome) in all {
            let error = outcome.err();
            workers.push(Outcome {
                worker: hexadecimal(worker),
                error: error.as_ref().map(body),
            });
            first = first.or(error);
        }
        let first = first.map(Refusal::from);
        Self {
            status: first.as_ref().map_or(StatusCode::OK, Refusal::status),
            body: Body {
                workers,
                error: first.map(|first| body(first.error())),
            },
        }
    }
}

fn body(error: &Error) -> ErrorBody {
    ErrorEnvelope::from(error).error
}

impl IntoResponse for Outcomes {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
