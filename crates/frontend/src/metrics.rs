use forebay_observability::{Buckets, Counter, EncodeLabelSet, Family, Gauge, Histogram, Registry};

/// The frontend's metrics, all under `forebay_frontend_`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    in_flight: Family<EndpointLabels, Gauge>,
    duration: Family<EndpointLabels, Histogram, Buckets>,
    disconnects: Family<EndpointLabels, Counter>,
    time_to_first_token: Family<ModelLabels, Histogram, Buckets>,
    inter_token_latency: Family<ModelLabels, Histogram, Buckets>,
    prompt_tokens: Family<ModelLabels, Counter>,
    cached_tokens: Family<ModelLabels, Counter>,
    completion_tokens: Family<ModelLabels, Counter>,
    pub(crate) connections: Gauge,
    pub(crate) connections_limit: Gauge,
}

/// What a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    ChatCompletions,
    Completions,
}

impl Endpoint {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    model: String,
    /// `2xx`, `4xx` or `5xx`.
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

/// The metrics of one model, looked up once for a request.
#[derive(Clone, Debug)]
pub(crate) struct ModelMetrics {
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) prompt_tokens: Counter,
    pub(crate) cached_tokens: Counter,
    pub(crate) completion_tokens: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let registry = registry.component("frontend");
        Self {
            requests: registry.family(
                "requests",
                "Requests that ended, by endpoint, model and class of status; a stream that failed \
                 counts under its error",
            ),
            in_flight: registry.family("requests_in_flight", "Requests that have not ended"),
            duration: registry.histogram_family(
                "request_duration_seconds",
                "From a request's arrival to the end of its answer",
                Buckets::REQUEST_DURATION,
            ),
            disconnects: registry.family(
                "client_disconnects",
                "Requests whose client left before the end of the answer",
            ),
            time_to_first_token: registry.histogram_family(
                "time_to_first_token_seconds",
                "TTFT: from a request's arrival to its first token",
                Buckets::TIME_TO_FIRST_TOKEN,
            ),
            inter_token_latency: registry.histogram_family(
                "inter_token_latency_seconds",
                "ITL: between two outputs of one choice",
                Buckets::INTER_TOKEN_LATENCY,
            ),
            prompt_tokens: registry.family("prompt_tokens", "Tokens of prompts"),
            cached_tokens: registry.family(
                "cached_tokens",
                "Tokens of prompts that were taken from the KV cache",
            ),
            completion_tokens: registry.family("completion_tokens", "Tokens generated"),
            connections: registry.gauge("connections", "Open connections"),
            connections_limit: registry
                .gauge("connections_limit", "How many connections may be open"),
        }
    }

    pub(crate) fn of_model(&self, name: &str) -> ModelMetrics {
        let labels = ModelLabels {
            model: name.to_owned(),
        };
        ModelMetrics {
            time_to_first_token: self.time_to_first_token.get_or_create_owned(&labels),
            inter_token_latency: self.inter_token_latency.get_or_create_owned(&labels),
            prompt_tokens: self.prompt_tokens.get_or_create_owned(&labels),
            cached_tokens: self.cached_tokens.get_or_create_owned(&labels),
            completion_tokens: self.completion_tokens.get_or_create_owned(&labels),
        }
    }

    pub(crate) fn begin(&self, endpoint: Endpoint) {
        self.in_flight(endpoint).inc();
    }

    /// `model` is a served model's name, or empty where none was found.
    pub(crate) fn end(&self, endpoint: Endpoint, model: &str, status: u16, seconds: f64) {
        self.in_flight(endpoint).dec();
        let labels = RequestLabels {
            endpoint: endpoint.as_str(),
            model: model.to_owned(),
            status: match status {
                0..=399 => "2xx",
                400..=499 => "4xx",
                500.. => "5xx",
            },
        };
        self.requests.get_or_create_owned(&labels).inc();
        let labels = EndpointLabels {
            endpoint: endpoint.as_str(),
        };
        self.duration.get_or_create_owned(&labels).observe(seconds);
    }

    pub(crate) fn disconnected(&self, endpoint: Endpoint) {
        let labels = EndpointLabels {
            endpoint: endpoint.as_str(),
        };
        self.disconnects.get_or_create_owned(&labels).inc();
    }

    fn in_flight(&self, endpoint: Endpoint) -> Gauge {
        let labels = EndpointLabels {
            endpoint: endpoint.as_str(),
        };
        self.in_flight.get_or_create_owned(&labels)
    }
}
