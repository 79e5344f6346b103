use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use forebay_observability::METRICS_CONTENT_TYPE;

use crate::app::App;

/// Whether the process is alive and ready, condition by condition; 503 if it is not alive.
#[utoipa::path(get, path = "/health", responses((status = 200), (status = 503)))]
pub(crate) async fn health(State(app): State<Arc<App>>) -> impl IntoResponse {
    let report = app.health.report();
    (status(report.live), Json(report))
}

/// Whether the process is alive: 503 means that only a restart can help.
#[utoipa::path(get, path = "/live", responses((status = 200), (status = 503)))]
pub(crate) async fn live(State(app): State<Arc<App>>) -> impl IntoResponse {
    let report = app.health.report();
    (status(report.live), Json(report))
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/ready", responses((status = 200), (status = 503)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> impl IntoResponse {
    let report = app.health.report();
    (status(report.ready), Json(report))
}

/// The metrics of the process in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, METRICS_CONTENT_TYPE)],
        app.registry.encode(),
    )
}

fn status(good: bool) -> StatusCode {
    match good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}
