use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use forebay_observability::Registry;
use forebay_protocols::openai::has_more_values;
use forebay_runtime::http::{no_method, no_route};
use forebay_runtime::{Health, Tasks};

use crate::body::Bodies;
use crate::config::Limits;
use crate::generation::Waiting;
use crate::metrics::Metrics;
use crate::models::ModelRegistry;
use crate::pool::PoolCollector;
use crate::{Process, request_id, routes};

/// A body up to this many bytes is parsed, rendered and tokenized on the async thread, which takes
/// less than 500 us...
const SHORT_BODY_BYTES: usize = 16 << 10;

/// ... and up to this many where a tokenizer is slow.
const SHORT_BODY_BYTES_SLOW: usize = 1 << 10;

/// The most values of such a body, as [`has_more_values`] counts them: some forty messages.
const SHORT_BODY_VALUES: usize = 1 << 10;

/// What every request handler sees.
pub(crate) struct App {
    pub(crate) limits: Limits,
    pub(crate) bodies: Bodies,
    pub(crate) models: ModelRegistry,
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) waiting: Arc<Waiting>,
}

impl App {
    pub(crate) fn new(limits: Limits, models: ModelRegistry, process: Process) -> Self {
        let registry = process.metrics;
        registry.register_collector(PoolCollector::new(models.clone()));
        Self {
            limits,
            bodies: Bodies::new(&limits, &registry),
            metrics: Arc::new(Metrics::new(&registry)),
            waiting: Arc::new(Waiting::new(&limits, &registry)),
            models,
            tasks: process.tasks,
            health: process.health,
            registry,
        }
    }

    /// Whether a body is prepared on the async thread.
    pub(crate) fn is_short(&self, body: &[u8]) -> bool {
        let most_bytes = match self.models.is_fast() {
            true => SHORT_BODY_BYTES,
            false => SHORT_BODY_BYTES_SLOW,
        };
        body.len() <= most_bytes && !has_more_values(body, SHORT_BODY_VALUES)
    }
}

/// The whole surface: every route there is.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(routes::chat_completions))
        .route("/v1/completions", post(routes::completions))
        .route("/v1/models", get(routes::list_models))
        .route("/v1/models/{*id}", get(routes::get_model))
        .route("/health", get(routes::health))
        .route("/live", get(routes::live))
        .route("/ready", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .route("/openapi.json", get(routes::openapi))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
        .layer(middleware::from_fn(request_id::assign))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::FrontendConfig;

    #[test]
    fn short_is_what_has_few_bytes_and_few_values() {
        let registry = Registry::new();
        let process = Process {
            tasks: Tasks::new(&registry),
            health: Health::new(),
            metrics: registry,
        };
        let limits = FrontendConfig::default().limits().unwrap();
        let app = App::new(limits, ModelRegistry::default(), process);
        let chat = |messages: usize| {
            let message = r#"{"role":"user","content":"x"},"#.repeat(messages);
            format!(r#"{{"messages":[{}]}}"#, message.trim_end_matches(','))
        };
        let text = |bytes: usize| format!(r#""{}""#, ",".repeat(bytes - 2));
        assert!(app.is_short(text(SHORT_BODY_BYTES).as_bytes()));
        assert!(!app.is_short(text(SHORT_BODY_BYTES + 1).as_bytes()));
        assert!(app.is_short(chat(40).as_bytes()));
        assert!(chat(530).len() <= SHORT_BODY_BYTES);
        assert!(!app.is_short(chat(530).as_bytes()));
    }
}
