use http::HeaderMap;
use tracing::Span;

/// The span of one client request: whatever is logged inside it carries the `request_id`, and the
/// `trace_id` once [`continue_trace`] was called.
///
/// It has the level `ERROR`, so that a filter that lets only warnings or errors through still
/// shows whose they are. `otel.name` and `otel.status_code` may be recorded on it later (see
/// `tracing-opentelemetry`), for instance the matched route and `ERROR`.
pub fn request_span(request_id: &str) -> Span {
    tracing::error_span!(
        "request",
        request_id,
        trace_id = tracing::field::Empty,
        otel.name = tracing::field::Empty,
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
    )
}

/// Makes `span` a part of the trace that the caller's W3C `traceparent` and `tracestate` headers
/// name (<https://www.w3.org/TR/trace-context/>), or the start of a new one, and records its
/// `trace_id`.
///
/// To be called before the span is entered. Does nothing where no traces are exported; a header
/// that is not valid counts as absent.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    #[cfg(feature = "otlp")]
    otel::continue_trace(span, headers);
    #[cfg(not(feature = "otlp"))]
    let _ = (span, headers);
}

/// Writes the `traceparent` and `tracestate` headers that let a callee continue the trace of
/// `span`. Does nothing where no traces are exported.
pub fn propagate_trace(span: &Span, headers: &mut HeaderMap) {
    #[cfg(feature = "otlp")]
    otel::propagate_trace(span, headers);
    #[cfg(not(feature = "otlp"))]
    let _ = (span, headers);
}

#[cfg(feature = "otlp")]
mod otel {
    use http::HeaderMap;
    use opentelemetry::propagation::TextMapPropagator as _;
    use opentelemetry::trace::TraceContextExt as _;
    use opentelemetry_http::{HeaderExtractor, HeaderInjector};
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    pub(super) fn continue_trace(span: &Span, headers: &HeaderMap) {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        if span.set_parent(parent).is_err() {
            // No exporter listens to this span, or it has begun already and keeps its parent.
            return;
        }
        let context = span.context();
        let trace_id = context.span().span_context().trace_id();
        span.record("trace_id", tracing::field::display(trace_id));
    }

    pub(super) fn propagate_trace(span: &Span, headers: &mut HeaderMap) {
        TraceContextPropagator::new().inject_context(&span.context(), &mut HeaderInjector(headers));
    }
}
