use std::time::{Duration, Instant};

use forebay_pipeline::{Request, Step};
use forebay_protocols::Error;
use forebay_protocols::openai::Usage;
use tracing::Span;

use crate::metrics::{Endpoint, Metrics, ModelMetrics};
use crate::refusal::Refusal;

/// What is told about one request: metrics as it goes, and one log line at its end.
///
/// It is held by whatever answers the request. If that is dropped before the answer's end, the
/// client has left, and the record tells that.
pub(crate) struct Record {
    metrics: Metrics,
    endpoint: Endpoint,
    arrived: Instant,
    span: Span,
    model: String,
    of_model: Option<ModelMetrics>,
    first_token: Option<Duration>,
    usage: Usage,
    ended: bool,
}

impl Record {
    /// A request that arrived now, in the current span.
    pub(crate) fn begin(metrics: &Metrics, endpoint: Endpoint) -> Self {
        metrics.begin(endpoint);
        Self {
            metrics: metrics.clone(),
            endpoint,
            arrived: Instant::now(),
            span: Span::current(),
            model: String::new(),
            of_model: None,
            first_token: None,
            usage: Usage::default(),
            ended: false,
        }
    }

    /// The time since it arrived.
    pub(crate) fn elapsed(&self) -> Duration {
        self.arrived.elapsed()
    }

    /// It is for this model.
    pub(crate) fn for_model(&mut self, name: &str) {
        name.clone_into(&mut self.model);
        self.of_model = Some(self.metrics.of_model(name));
    }

    /// Tokens came.
    pub(crate) fn step(&mut self, request: &Request, step: &Step) {
        let Some(metrics) = &self.of_model else {
            return;
        };
        if let Some(interval) = step.since_last_token {
            metrics.inter_token_latency.observe(interval.as_secs_f64());
        }
        if self.first_token.is_none() {
            self.first_token = request.timing().time_to_first_token();
            if let Some(ttft) = self.first_token {
                metrics.time_to_first_token.observe(ttft.as_secs_f64());
            }
        }
    }

    /// What it took so far.
    pub(crate) fn used(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// The whole answer was given to the connection.
    pub(crate) fn answered(mut self) {
        self.end(200, None);
    }

    /// The client was told this instead of an answer, or in the middle of it.
    pub(crate) fn failed(mut self, error: &Error) {
        self.end(error.class.http_status(), Some(error));
    }

    /// The request was refused before it was read.
    pub(crate) fn refused(mut self, refusal: &Refusal) {
        self.end(refusal.status().as_u16(), Some(refusal.error()));
    }

    fn end(&mut self, status: u16, error: Option<&Error>) {
        self.ended = true;
        let seconds = self.elapsed().as_secs_f64();
        self.metrics
            .end(self.endpoint, &self.model, status, seconds);
        let cached_tokens = self.cached_tokens();
        if let Some(metrics) = &self.of_model {
            metrics
                .prompt_tokens
                .inc_by(self.usage.prompt_tokens.into());
            metrics.cached_tokens.inc_by(cached_tokens.into());
            metrics
                .completion_tokens
                .inc_by(self.usage.completion_tokens.into());
        }
        let _entered = self.span.enter();
        if status >= 500 {
            self.span.record("otel.status_code", "ERROR");
        }
        // A level is a part of a line's static description, so each has a line of its own.
        macro_rules! line {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    endpoint = self.endpoint.as_str(),
                    model = %self.model,
                    status,
                    reason = error.map(|error| &*error.reason),
                    param = error.and_then(|error| error.param.as_deref()),
                    diagnostic = error.and_then(|error| error.diagnostic.as_deref()),
                    prompt_tokens = self.usage.prompt_tokens,
                    cached_tokens,
                    completion_tokens = self.usage.completion_tokens,
                    ttft_seconds = self.first_token.map(|ttft| ttft.as_secs_f64()),
                    duration_seconds = seconds,
                    $message
                )
            };
        }
        match status {
            500.. => line!(error, "request failed"),
            CLIENT_LEFT => line!(info, "client left"),
            400.. => line!(info, "request refused"),
            _ => line!(info, "request answered"),
        }
    }

    fn cached_tokens(&self) -> u32 {
        let details = self.usage.prompt_tokens_details;
        details.map_or(0, |details| details.cached_tokens)
    }
}

/// What proxies log for a client that left before its answer.
const CLIENT_LEFT: u16 = 499;

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.disconnected(self.endpoint);
            self.end(CLIENT_LEFT, None);
        }
    }
}
