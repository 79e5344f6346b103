use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::routing::{get, post};
use forebay_observability::Registry;
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{Health, Tasks};

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::model::ModelRegistry;
use crate::refusal::Refusal;
use crate::{request_id, routes};

/// What every request handler sees.
pub(crate) struct App {
    pub(crate) limits: Limits,
    pub(crate) models: ModelRegistry,
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
}

/// The whole surface: every route there is.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(routes::chat_completions))
        .route("/v1/completions", post(routes::completions))
        .route("/v1/models", get(routes::list_models))
        .route("/v1/models/{*id}", get(routes::get_model))
        .route("/health", get(routes::health))
        .route("/live", get(routes::live))
        .route("/ready", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .route("/openapi.json", get(routes::openapi))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
        .layer(middleware::from_fn(request_id::assign))
}

async fn no_route(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(128).collect();
    let message = format!("there is no {method} {path}");
    Error::new(ErrorClass::NotFound, "unknown_route", message).into()
}

async fn no_method(request: Request) -> Refusal {
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
