use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_observability::{Buckets, Counter, EncodeLabelSet, Family, Gauge, Histogram, Registry};

/// The frontend's metrics, all under `forebay_frontend_`.
///
/// Every series is made when the frontend is, and those of a model when that comes: a request looks
/// none up by its labels, and a rate is there before the first event. Those of a model go with it:
/// names come from whoever may register workers.
#[derive(Debug)]
pub(crate) struct Metrics {
    endpoints: [EndpointMetrics; 2],
    stages: [Histogram; 5],
    /// Of every model that is served.
    models: ArcSwap<HashMap<String, Arc<ModelMetrics>>>,
    of_models: ModelFamilies,
    no_model: Arc<ModelMetrics>,
}

/// What a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    ChatCompletions,
    Completions,
}

impl Endpoint {
    const ALL: [Self; 2] = [Self::ChatCompletions, Self::Completions];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
        }
    }
}

/// What a request goes through, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Its body arrives.
    Read,
    /// It is parsed, rendered and tokenized, perhaps after a wait for a thread.
    Prepare,
    /// Workers are chosen for it, perhaps after a wait for one, and take it.
    Route,
    /// The engine computes its first token.
    FirstToken,
    /// The rest of its answer.
    Rest,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::Read,
        Self::Prepare,
        Self::Route,
        Self::FirstToken,
        Self::Rest,
    ];

    /// The one after it; after the last, there is none.
    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Read => Self::Prepare,
            Self::Prepare => Self::Route,
            Self::Route => Self::FirstToken,
            Self::FirstToken | Self::Rest => Self::Rest,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Prepare => "prepare",
            Self::Route => "route",
            Self::FirstToken => "first_token",
            Self::Rest => "rest",
        }
    }
}

/// A status as requests are counted under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusClass {
    Good,
    Refused,
    Failed,
}

impl StatusClass {
    const ALL: [Self; 3] = [Self::Good, Self::Refused, Self::Failed];

    const fn of(status: u16) -> Self {
        match status {
            0..=399 => Self::Good,
            400..=499 => Self::Refused,
            500.. => Self::Failed,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "2xx",
            Self::Refused => "4xx",
            Self::Failed => "5xx",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    model: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

impl RequestLabels {
    /// Of a model, by endpoint and class of status.
    fn all(model: &str) -> [[Self; 3]; 2] {
        Endpoint::ALL.map(|endpoint| {
            StatusClass::ALL.map(|status| Self {
                endpoint: endpoint.as_str(),
                model: model.to_owned(),
                status: status.as_str(),
            })
        })
    }
}

#[derive(Debug)]
struct EndpointMetrics {
    in_flight: Gauge,
    duration: Histogram,
    disconnects: Counter,
}

/// The metrics of one model.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    /// By endpoint and class of status.
    requests: [[Counter; 3]; 2],
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) prompt_tokens: Counter,
    pub(crate) cached_tokens: Counter,
    pub(crate) completion_tokens: Counter,
    pub(crate) retries: Counter,
}

impl Metrics {
    /// The metrics of a frontend that serves nothing yet.
    pub(crate) fn new(registry: &Registry) -> Self {
        let registry = registry.component("frontend");
        let of_models = ModelFamilies::new(&registry);
        Self {
            endpoints: endpoints(&registry),
            stages: stages(&registry),
            models: ArcSwap::default(),
            no_model: Arc::new(of_models.of_none()),
            of_models,
        }
    }

    /// Of a served model by its name.
    pub(crate) fn of_model(&self, name: &str) -> Arc<ModelMetrics> {
        if let Some(known) = self.models.load().get(name) {
            return known.clone();
        }
        let made = Arc::new(self.of_models.of(name));
        self.models.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(name.to_owned(), made.clone());
            known
        });
        made
    }

    /// Ends the series of all other models than these, whose names are in order.
    pub(crate) fn retain(&self, served: &[&str]) {
        let is_gone = |name: &&String| served.binary_search(&name.as_str()).is_err();
        let gone: Vec<_> = self.models.load().keys().filter(is_gone).cloned().collect();
        if gone.is_empty() {
            return;
        }
        self.models.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.retain(|name, _| !gone.contains(name));
            known
        });
        for name in &gone {
            self.of_models.remove(name);
        }
    }

    /// Of a request for no model that is served.
    pub(crate) fn of_no_model(&self) -> Arc<ModelMetrics> {
        self.no_model.clone()
    }

    pub(crate) fn begin(&self, endpoint: Endpoint) {
        self.endpoints[endpoint as usize].in_flight.inc();
    }

    pub(crate) fn end(&self, endpoint: Endpoint, model: &ModelMetrics, status: u16, seconds: f64) {
        let metrics = &self.endpoints[endpoint as usize];
        metrics.in_flight.dec();
        metrics.duration.observe(seconds);
        model.requests[endpoint as usize][StatusClass::of(status) as usize].inc();
    }

    pub(crate) fn disconnected(&self, endpoint: Endpoint) {
        self.endpoints[endpoint as usize].disconnects.inc();
    }

    pub(crate) fn passed(&self, stage: Stage, seconds: f64) {
        self.stages[stage as usize].observe(seconds);
    }
}

fn endpoints(registry: &Registry) -> [EndpointMetrics; 2] {
    let in_flight =
        registry.family::<_, Gauge>("requests_in_flight", "Requests that have not ended");
    let duration = registry.histogram_family(
        "request_duration_seconds",
        "From a request's arrival to the end of its answer",
        Buckets::REQUEST_DURATION,
    );
    let disconnects = registry.family::<_, Counter>(
        "client_disconnects",
        "Requests whose client left before the end of the answer",
    );
    Endpoint::ALL.map(|endpoint| {
        let labels = EndpointLabels {
            endpoint: endpoint.as_str(),
        };
        EndpointMetrics {
            in_flight: in_flight.get_or_create_owned(&labels),
            duration: duration.get_or_create_owned(&labels),
            disconnects: disconnects.get_or_create_owned(&labels),
        }
    })
}

fn stages(registry: &Registry) -> [Histogram; 5] {
    let family = registry.histogram_family(
        "stage_duration_seconds",
        "How long requests took for what they go through: read, prepare, route, first_token, rest",
        Buckets::STAGE_DURATION,
    );
    Stage::ALL.map(|stage| {
        family.get_or_create_owned(&StageLabels {
            stage: stage.as_str(),
        })
    })
}

#[derive(Debug)]
struct ModelFamilies {
    requests: Family<RequestLabels, Counter>,
    time_to_first_token: Family<ModelLabels, Histogram, Buckets>,
    inter_token_latency: Family<ModelLabels, Histogram, Buckets>,
    prompt_tokens: Family<ModelLabels, Counter>,
    cached_tokens: Family<ModelLabels, Counter>,
    completion_tokens: Family<ModelLabels, Counter>,
    retries: Family<ModelLabels, Counter>,
}

impl ModelFamilies {
    fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.family(
                "requests",
                "Requests that ended, by endpoint, model and class of status; a stream that failed \
                 counts under its error",
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
            retries: registry.family(
                "retries",
                "Attempts at another worker, after one refused a choice or failed in it",
            ),
        }
    }

    fn of(&self, name: &str) -> ModelMetrics {
        let model = ModelLabels {
            model: name.to_owned(),
        };
        ModelMetrics {
            requests: self.requests(name),
            time_to_first_token: self.time_to_first_token.get_or_create_owned(&model),
            inter_token_latency: self.inter_token_latency.get_or_create_owned(&model),
            prompt_tokens: self.prompt_tokens.get_or_create_owned(&model),
            cached_tokens: self.cached_tokens.get_or_create_owned(&model),
            completion_tokens: self.completion_tokens.get_or_create_owned(&model),
            retries: self.retries.get_or_create_owned(&model),
        }
    }

    /// Ends the series of a model. Requests of it that go on count where nobody reads.
    fn remove(&self, name: &str) {
        let model = ModelLabels {
            model: name.to_owned(),
        };
        self.time_to_first_token.remove(&model);
        self.inter_token_latency.remove(&model);
        for counters in [
            &self.prompt_tokens,
            &self.cached_tokens,
            &self.completion_tokens,
            &self.retries,
        ] {
            counters.remove(&model);
        }
        for labels in RequestLabels::all(name).as_flattened() {
            self.requests.remove(labels);
        }
    }

    /// Of requests that come to no model, and so to no token.
    fn of_none(&self) -> ModelMetrics {
        ModelMetrics {
            requests: self.requests(""),
            time_to_first_token: Histogram::new([]),
            inter_token_latency: Histogram::new([]),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            retries: Counter::default(),
        }
    }

    fn requests(&self, model: &str) -> [[Counter; 3]; 2] {
        let labels = RequestLabels::all(model);
        labels.map(|labels| labels.map(|labels| self.requests.get_or_create_owned(&labels)))
    }
}
