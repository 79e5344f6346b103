use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use forebay_engine::{Control, Error, ErrorClass};
use forebay_observability::METRICS_CONTENT_TYPE;
use forebay_protocols::openai::parse;
use forebay_runtime::http::{Refusal, no_method, no_route};
use futures::future::join_all;
use serde::Deserialize;

use super::card_change::CardChange;
use super::metadata::{Metadata, hexadecimal};
use super::outcomes::Outcomes;
use super::same_site::same_site;
use super::server::{Process, StatusProcess};
use crate::WorkerHandle;

/// The longest body of a control, in bytes.
const BODY_LIMIT: usize = 64 << 10;

/// What the router serves, as a user is shown it.
pub(super) const OFFERS: [&str; 2] = [
    "GET  /health  /live  /ready  /metrics  /metadata",
    "POST /engine/pause  /engine/resume  /engine/clear-kv-cache  /engine/card",
];

pub(super) fn router(process: StatusProcess) -> Router {
    let process = Arc::new(process);
    let controls = Router::new()
        .route("/engine/card", post(card))
        .route("/engine/{control}", post(control))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(process.clone(), same_site));
    Router::new()
        .route("/health", get(health))
        .route("/live", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/metadata", get(metadata))
        .merge(controls)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(process)
}

/// The process's conditions; 503 if only a restart can help.
async fn health(State(process): State<Process>) -> impl IntoResponse {
    let report = process.health.report();
    (status(report.live), Json(report))
}

/// The same; 503 unless requests should be sent here.
async fn ready(State(process): State<Process>) -> impl IntoResponse {
    let report = process.health.report();
    (status(report.ready), Json(report))
}

fn status(good: bool) -> StatusCode {
    match good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The metrics of the process in the OpenMetrics text format.
async fn metrics(State(process): State<Process>) -> impl IntoResponse {
    let content_type = [(CONTENT_TYPE, METRICS_CONTENT_TYPE)];
    (content_type, process.metrics.encode())
}

/// Every worker and its card.
async fn metadata(State(process): State<Process>) -> impl IntoResponse {
    Json(Metadata::of(process.workers()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whom {
    /// A worker's id in hexadecimal; absent, all of them.
    worker: Option<String>,
}

/// `pause`, `resume` or `clear-kv-cache` of every engine, or of one worker's.
async fn control(
    State(process): State<Process>,
    Path(control): Path<String>,
    whom: Result<Query<Whom>, QueryRejection>,
) -> Result<Outcomes, Refusal> {
    let control = match &*control {
        "pause" => Control::Pause,
        "resume" => Control::Resume,
        "clear-kv-cache" => Control::ClearKvCache,
        _ => {
            let message = "an engine takes pause, resume, clear-kv-cache and card";
            return Err(Error::new(ErrorClass::NotFound, "unknown_control", message).into());
        }
    };
    let workers = meant(&process, whom)?;
    let told = workers.into_iter().map(|worker| async move {
        let told = worker.control(control).await;
        (worker.id(), told)
    });
    Ok(Outcomes::of(join_all(told).await))
}

/// Changes the card of every worker, or of one.
async fn card(
    State(process): State<Process>,
    whom: Result<Query<Whom>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Outcomes, Refusal> {
    let change: CardChange = parse(&body.map_err(not_read)?)?;
    if change.aliases().any(str::is_empty) {
        return Err(Error::invalid("aliases", "must not have an empty one").into());
    }
    let workers = meant(&process, whom)?;
    let changed = workers.into_iter().map(|worker| {
        let change = change.clone();
        let changed = worker.update_card(|card| change.apply(card));
        (worker.id(), changed.map(drop).map_err(Error::from))
    });
    Ok(Outcomes::of(changed))
}

/// The workers that are meant: one at least.
fn meant(
    process: &StatusProcess,
    whom: Result<Query<Whom>, QueryRejection>,
) -> Result<Vec<&WorkerHandle>, Error> {
    let Query(whom) = whom.map_err(|error| {
        let message = error.body_text();
        Error::new(ErrorClass::InvalidRequest, "malformed_query", message)
    })?;
    let workers = process.workers().iter();
    let meant = workers.filter(|worker| {
        let whom = whom.worker.as_ref();
        whom.is_none_or(|whom| *whom == hexadecimal(worker.id()))
    });
    let meant: Vec<_> = meant.collect();
    match meant.is_empty() {
        true => {
            let message = "there is no such worker";
            Err(Error::new(ErrorClass::NotFound, "unknown_worker", message))
        }
        false => Ok(meant),
    }
}

fn not_read(error: BytesRejection) -> Refusal {
    Refusal::of_http(error.status(), "body_not_read", error.body_text())
}
