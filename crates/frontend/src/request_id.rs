use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use forebay_observability::{continue_trace, request_span};
use forebay_runtime::http::random_request_id;
use forebay_tokens::RequestId;
use tracing::Instrument;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives every request its id: the client's `x-request-id` if it can serve as one, else a random
/// one. The response carries it back, and every log line of the request has it.
///
/// Clients send one id with several requests (a retry, a trace), but an engine knows a request by
/// its id: what handlers are given is the client's id with a random end.
pub(crate) async fn assign(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(X_REQUEST_ID);
    let given = given.and_then(|id| RequestId::new(id.to_str().ok()?).ok());
    let (id, unique) = match given {
        Some(id) => (id.clone(), unique(&id)),
        None => {
            let id = random_request_id();
            (id.clone(), id)
        }
    };
    let value = HeaderValue::from_str(id.as_str()).expect("an id is visible ASCII");
    let span = request_span(id.as_str());
    continue_trace(&span, request.headers());
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        let name = format!("{} {}", request.method(), route.as_str());
        span.record("otel.name", name);
    }
    request.extensions_mut().insert(unique);
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, value);
    response
}

fn unique(id: &RequestId) -> RequestId {
    let random = random_u64();
    RequestId::new(&format!("{id}-{random:016x}"))
        // Too long with its end.
        .unwrap_or_else(|_| random_request_id())
}

/// 64 random bits of the system's.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().expect("the system has a source of randomness")
}
