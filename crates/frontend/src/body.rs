use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;

use crate::config::Limits;
use crate::refusal::Refusal;

/// The JSON body of a request, within its limits.
///
/// Another content type than JSON is refused, and an absent one, too: a browser sends those across
/// origins without asking.
pub(crate) async fn read_json(request: Request<Body>, limits: &Limits) -> Result<Bytes, Refusal> {
    if !is_json(request.headers()) {
        return Err(Refusal::of_http(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_content_type",
            "the header content-type must be application/json".to_owned(),
        ));
    }
    let limit = limits.body_bytes;
    let body = request.into_body();
    // What the client announces need not be read to be refused.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit).into());
    }
    let read = Limited::new(body, limit).collect();
    match tokio::time::timeout(limits.body_timeout, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit).into()),
        Ok(Err(error)) => Err(invalid("body_incomplete", "the body did not arrive whole")
            .with_diagnostic(error.to_string())
            .into()),
        Err(_) => {
            let seconds = limits.body_timeout.as_secs_f64();
            let message = format!("the body did not arrive within {seconds} s");
            Err(Refusal::of_http(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                message,
            ))
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    content_type.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/json")
    })
}

fn too_large(limit: usize) -> Error {
    Error::new(
        ErrorClass::TooLarge,
        "body_too_large",
        format!("the body has more than {limit} bytes"),
    )
}

fn invalid(reason: &'static str, message: &str) -> Error {
    Error::new(ErrorClass::InvalidRequest, reason, message)
}
