use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use forebay_protocols::{Error, ErrorClass};

use super::refusal::Refusal;

/// Answers what nobody serves: 404.
pub async fn no_route(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(128).collect();
    let message = format!("there is no {method} {path}");
    Error::new(ErrorClass::NotFound, "unknown_route", message).into()
}

/// Answers a method that a path does not take: 405.
pub async fn no_method(request: Request) -> Refusal {
    let message = format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    );
    Refusal::of_http(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}
