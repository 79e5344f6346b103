use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_pipeline::{Request, Step};
use forebay_protocols::Error;
use forebay_protocols::openai::Usage;
use forebay_runtime::http::Refusal;
use tracing::Span;

use crate::metrics::{Endpoint, Metrics, ModelMetrics, Stage};
use crate::pool::Place;

/// What is told about one request: metrics as it goes, and one log line at its end.
///
/// It is held by whatever answers the request. If that is dropped before the answer's end, the
/// client has left, and the record tells that.
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    endpoint: Endpoint,
    arrived: Instant,
    stage: Stage,
    /// When its stage began, since it arrived.
    stage_began: Duration,
    is_routed: bool,
    span: Span,
    model: String,
    of_model: Arc<ModelMetrics>,
    first_token: Option<Duration>,
    usage: Usage,
    ended: bool,
}

impl Record {
    /// A request that arrived now, in the current span.
    pub(crate) fn begin(metrics: &Arc<Metrics>, endpoint: Endpoint) -> Self {
        metrics.begin(endpoint);
        Self {
            metrics: metrics.clone(),
            endpoint,
            arrived: Instant::now(),
            stage: Stage::Read,
            stage_began: Duration::ZERO,
            is_routed: false,
            span: Span::current(),
            model: String::new(),
            of_model: metrics.of_no_model(),
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
        self.of_model = self.metrics.of_model(name);
    }

    /// It is through with this stage, and the next one begins.
    pub(crate) fn passed(&mut self, stage: Stage) {
        let now = self.elapsed();
        let took = now.saturating_sub(self.stage_began);
        self.metrics.passed(stage, took.as_secs_f64());
        // The first token of one choice may come before another choice is taken.
        self.stage = self.stage.max(stage.next());
        self.stage_began = now;
    }

    /// Workers have taken it; once, whatever comes of them.
    pub(crate) fn routed(&mut self) {
        if !std::mem::replace(&mut self.is_routed, true) {
            self.passed(Stage::Route);
        }
    }

    /// A worker failed it, and another one is asked or waited for.
    pub(crate) fn retried(&self, at: Option<Place>, failure: &Error) {
        self.of_model.retries.inc();
        let _entered = self.span.enter();
        tracing::warn!(
            model = %self.model,
            worker = at.map(|place| place.at.worker.0),
            reason = &*failure.reason,
            diagnostic = failure.diagnostic.as_deref(),
            "attempt failed, another worker is asked"
        );
    }

    /// The version of its model that it was given to has no worker for it, and another one has.
    pub(crate) fn goes_over(&mut self, model: &str, version: Option<&str>) {
        self.for_model(model);
        let _entered = self.span.enter();
        tracing::info!(model, version, "request goes over to another version");
    }

    /// Tokens came.
    pub(crate) fn step(&mut self, request: &Request, step: &Step) {
        if let Some(interval) = step.since_last_token {
            let latency = &self.of_model.inter_token_latency;
            latency.observe(interval.as_secs_f64());
        }
        if self.first_token.is_none() {
            self.first_token = request.timing().time_to_first_token();
            if let Some(ttft) = self.first_token {
                let to_first = &self.of_model.time_to_first_token;
                to_first.observe(ttft.as_secs_f64());
                self.passed(Stage::FirstToken);
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
        // Wherever it ended: the stages of a request add up to its time.
        self.passed(self.stage);
        let (usage, of_model) = (&self.usage, &self.of_model);
        let cached_tokens = self.cached_tokens();
        of_model.prompt_tokens.inc_by(usage.prompt_tokens.into());
        of_model.cached_tokens.inc_by(cached_tokens.into());
        let completion_tokens = usage.completion_tokens;
        of_model.completion_tokens.inc_by(completion_tokens.into());
        self.metrics.end(self.endpoint, of_model, status, seconds);
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
