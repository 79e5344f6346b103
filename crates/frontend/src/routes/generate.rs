use std::future::poll_fn;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use forebay_protocols::openai::{
    ChatCompletion, ChatCompletionRequest, Completion, CompletionRequest, ErrorEnvelope,
};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::http::Refusal;
use forebay_runtime::{BlockingError, Context};
use forebay_tokens::RequestId;

use crate::api::{Api, Envelope, Events, Whole};
use crate::app::App;
use crate::generation::{Answering, Prepared, Unprepared, prepare_chat, prepare_completion};
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
    let prepared = match prepare_when_ready(&app, id, body, api, &context, &mut record).await {
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
    let (waiting, tasks) = (app.waiting.clone(), app.tasks.clone());
    let answering = match Answering::start(prepared, context, waiting, tasks, record).await {
        Ok(answering) => answering,
        Err(error) => return Refusal::from(error).into_response(),
    };
    match stream {
        true => streamed(answering, envelope, include_usage),
        false => at_once(answering, envelope).await,
    }
}

/// Prepares a request; for a version of its model that has workers, if one comes to have them in
/// time: another one may have another tokenizer. A model that is on its way is waited for, too.
async fn prepare_when_ready(
    app: &Arc<App>,
    id: RequestId,
    body: Bytes,
    api: Api,
    context: &Context,
    record: &mut Record,
) -> Result<Prepared, Error> {
    let prepared = prepare(app, id.clone(), body.clone(), api).await;
    let asked_model = match prepared {
        Ok(prepared) => {
            let model = &prepared.model;
            record.for_model(model.name());
            record.passed(Stage::Prepare);
            if model.version().is_none() || model.pool().ready_workers() > 0 {
                return Ok(prepared);
            }
            prepared.asked_model
        }
        Err(Unprepared::NoModel(name)) if app.models.may_have(&name) => {
            record.passed(Stage::Prepare);
            name
        }
        Err(unprepared) => return Err(unprepared.into()),
    };
    let waiting = &app.waiting;
    (waiting.for_model(&app.models, &asked_model, context)).await?;
    let prepared = prepare(app, id, body, api).await?;
    record.for_model(prepared.model.name());
    Ok(prepared)
}

async fn prepare(
    app: &Arc<App>,
    id: RequestId,
    body: Bytes,
    api: Api,
) -> Result<Prepared, Unprepared> {
    let is_short = app.is_short(&body);
    let work = {
        let app = app.clone();
        move || match api {
            Api::Chat => prepare_chat(&body, id, &app.models, &app.limits),
            Api::Completion => prepare_completion(&body, id, &app.models, &app.limits),
        }
    };
    if is_short {
        return work();
    }
    match app.tasks.run_blocking("tokenize", work).await {
        Ok(prepared) => prepared,
        Err(BlockingError::Cancelled) => Err(Error::new(
            ErrorClass::Unavailable,
            "shutting_down",
            "the server is shutting down",
        )
        .into()),
        Err(error) => Err(Error::internal(error.to_string()).into()),
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
