use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use forebay_protocols::Error;
use forebay_protocols::openai::{ErrorEnvelope, Model, ModelList};
use forebay_runtime::http::Refusal;

use crate::app::App;

/// Lists every name under which a model is served.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = ModelList)))]
pub(crate) async fn list_models(State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList {
        object: "list".into(),
        data: app.models.list(),
    })
}

/// Tells about one model. Its id may contain slashes.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    params(("id" = String, Path, description = "A name from the list.")),
    responses((status = 200, body = Model), (status = 404, body = ErrorEnvelope))
)]
pub(crate) async fn get_model(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, Refusal> {
    let Path(id) = id.map_err(|_| Error::invalid("model", "is not valid UTF-8"))?;
    Ok(Json(app.models.describe(&id)?))
}
