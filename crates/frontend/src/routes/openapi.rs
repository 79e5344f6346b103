use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::OpenApi;

use super::{generate, models, process};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Forebay",
        description = "OpenAI-compatible inference over any engine."
    ),
    paths(
        generate::chat_completions,
        generate::completions,
        models::list_models,
        models::get_model,
        process::health,
        process::live,
        process::ready,
        process::metrics,
        openapi,
    )
)]
struct Document;

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let document = serde_json::to_vec(&Document::openapi());
    document.expect("the document serialises").into()
});

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200)))]
pub(crate) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}
