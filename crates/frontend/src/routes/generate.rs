use std::future::poll_fn;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use forebay_protocols::openai::{
    ChatCompletion, ChatCompletionRequest, Completion, CompletionRequest, ErrorEnvelope,
};
use forebay_runtime::Context;
use forebay_runtime::http::Refusal;
use forebay_tokens::RequestId;

use super::asked::Asked;
use crate::api::{Api, Envelope, Events, Whole};
use crate::app::App;
use crate::generation::{Answering, Carried};
use crate::metrics::{Endpoint, Stage};
use crate::record::Record;

/// Answers a conversation.
///
/// With `stream`, the answer comes as server-sent events, each a `ChatCompletionChunk`, and ends
/// with `data: [DONE]`; an error in the middle is one event `{"error": ...}`, and ends it.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    request_body = ChatCompletionRequest,
    responses((status = 200, body = ChatCompletion), (status = "default", body = ErrorEnvelope))
)]
pub(crate) async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    answer(app, id, request, Api::Chat).await
}

/// Continues one or more texts.
///
/// With `stream`, the answer comes as server-sent events, each a `Completion`, and ends with
/// `data: [DONE]`; an error in the middle is one event `{"error": ...}`, and ends it.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body = CompletionRequest,
    responses((status = 200, body = Completion), (status = "default", body = ErrorEnvelope))
)]
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    answer(app, id, request, Api::Completion).await
}

async fn answer(app: Arc<App>, id: RequestId, request: Request, api: Api) -> Response {
    let endpoint = match api {
        Api::Chat => Endpoint::ChatCompletions,
        Api::Completion => Endpoint::Completions,
    };
    let mut record = Record::begin(&app.metrics, endpoint);
    let body = match app.bodies.read_json(request).await {
        Ok(body) => body,
        Err(refusal) => {
            record.refused(&refusal);
            return refusal.into_response();
        }
    };
    record.passed(Stage::Read);
    let context = Context::new(id.clone(), app.tasks.requests());
    let asked = Asked {
        app: &app,
        id,
        body,
        api,
        context,
    };
    let (prepared, place) = match asked.prepare_when_ready(&mut record).await {
        Ok(prepared) => prepared,
        Err(error) => {
            record.failed(&error);
            return Refusal::from(error).into_response();
        }
    };
    let (stream, include_usage) = (prepared.stream, prepared.include_usage);
    let envelope = Envelope::new(
        api,
        &prepared.plan,
        prepared.asked_model.clone(),
        &prepared.text,
    );
    let carried = Carried {
        record,
        place,
        attempts: app.limits.attempts,
        tried: Vec::new(),
    };
    let answering = match asked.start(prepared, carried).await {
        Ok(answering) => answering,
        Err(error) => return Refusal::from(error).into_response(),
    };
    match stream {
        true => streamed(answering, envelope, include_usage),
        false => at_once(answering, envelope).await,
    }
}

async fn at_once(mut answering: Answering, envelope: Envelope) -> Response {
    let mut whole = Whole::new(envelope);
    let mut parts = Vec::new();
    loop {
        match poll_fn(|cx| answering.poll_parts(cx, &mut parts)).await {
            Ok(true) => parts.drain(..).for_each(|part| whole.part(part)),
            Ok(false) => return whole.response(answering.usage(), answering.tokenizer()),
            Err(error) => return Refusal::from(error).into_response(),
        }
    }
}

/// The answer as it comes. The body is the request: it goes on while the connection takes it, and
/// ends in the engine when the connection drops it.
fn streamed(answering: Answering, envelope: Envelope, include_usage: bool) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
    ];
    let events = Events::new(answering, envelope, include_usage);
    (headers, Body::new(events)).into_response()
}
