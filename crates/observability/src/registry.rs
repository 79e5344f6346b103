use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::{
    TypedMetric, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info,
};
use prometheus_client::registry::{Metric, Registry as Inner, Unit};

use crate::buckets::Buckets;
use crate::config::BuildInfo;
use crate::process::ProcessCollector;

/// The content type of [`Registry::encode`]'s text.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one process; a cheap handle that components clone.
///
/// Names follow the Prometheus conventions and are checked when a metric is registered:
///
/// - every name gets the prefix `forebay_` and, through [`Registry::component`], the component's
///   name after it;
/// - it is in snake case and ends in its unit (`_seconds`, `_bytes`, `_tokens`, `_blocks`,
///   `_ratio`) if it has one; the unit is then also declared in the exposition;
/// - the suffixes that the format itself adds (`_total` of a counter, `_info`, `_bucket`, `_sum`,
///   `_count`) are left away.
///
/// Registering a name again with the same type of metric gives the metric that is there, so that
/// two instances of a component in one process count into the same series.
///
/// Registering and encoding take a lock; counting and observing take none of this type's.
///
/// # Panics
///
/// Every function that registers panics if the name breaks the rules above or is already taken by
/// another type of metric: names are constants, so this is a mistake in the code that calls.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Mutex<Shared>>,
    prefix: Arc<str>,
}

#[derive(Default)]
struct Shared {
    inner: Inner,
    /// Every registered metric by full name, as what was registered.
    by_name: HashMap<String, Box<dyn Any + Send>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            prefix: "forebay".into(),
        }
    }

    /// A registry with what a process tells about itself: `forebay_build_info`, and the
    /// `process_*` metrics of the Prometheus client libraries (CPU seconds, memory, descriptors,
    /// threads, start time), which are read from `/proc` at each scrape and exist on Linux only.
    pub fn for_process(build: &BuildInfo) -> Self {
        let registry = Self::new();
        let mut shared = registry.shared.lock();
        shared.inner.register(
            "forebay_build",
            "What is running",
            Info::new(vec![
                ("service", build.service),
                ("version", build.version),
                ("revision", build.revision),
            ]),
        );
        shared
            .inner
            .register_collector(Box::new(ProcessCollector::default()));
        drop(shared);
        registry
    }

    /// The same registry with `_<name>` added to the prefix of what is registered through it.
    pub fn component(&self, name: &str) -> Self {
        check_name(name);
        Self {
            shared: self.shared.clone(),
            prefix: format!("{}_{name}", self.prefix).into(),
        }
    }

    /// Registers a counter; `help` has no full stop, the format adds it.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default)
    }

    /// Registers a gauge of whole numbers.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default)
    }

    /// Registers a histogram.
    pub fn histogram(&self, name: &str, help: &str, buckets: Buckets) -> Histogram {
        self.register(name, help, || buckets.histogram())
    }

    /// Registers counters or gauges told apart by a set of labels.
    ///
    /// Labels must have few values: never a request id, a user or a prompt.
    pub fn family<S, M>(&self, name: &str, help: &str) -> Family<S, M>
    where
        S: EncodeLabelSet + Clone + fmt::Debug + Hash + Eq + Send + Sync + 'static,
        M: EncodeMetric + TypedMetric + Clone + Default + fmt::Debug + Send + Sync + 'static,
    {
        self.register(name, help, Family::default)
    }

    /// Registers histograms told apart by a set of labels.
    pub fn histogram_family<S>(
        &self,
        name: &str,
        help: &str,
        buckets: Buckets,
    ) -> Family<S, Histogram, Buckets>
    where
        S: EncodeLabelSet + Clone + fmt::Debug + Hash + Eq + Send + Sync + 'static,
    {
        self.register(name, help, || Family::new_with_constructor(buckets))
    }

    /// Registers a metric of any type; `make` is called unless the name is registered already.
    pub fn register<M>(&self, name: &str, help: &str, make: impl FnOnce() -> M) -> M
    where
        M: Metric + Clone,
    {
        check_name(name);
        let full_name = format!("{}_{name}", self.prefix);
        let mut shared = self.shared.lock();
        if let Some(metric) = shared.by_name.get(&full_name) {
            return metric
                .downcast_ref::<M>()
                .unwrap_or_else(|| panic!("`{full_name}` is registered as another type of metric"))
                .clone();
        }
        let metric = make();
        match split_unit(&full_name) {
            (stem, Some(unit)) => {
                shared
                    .inner
                    .register_with_unit(stem, help, unit, metric.clone());
            }
            (stem, None) => shared.inner.register(stem, help, metric.clone()),
        }
        shared.by_name.insert(full_name, Box::new(metric.clone()));
        metric
    }

    /// Registers metrics that are computed at each scrape. Their names are the collector's own,
    /// without a prefix.
    pub fn register_collector(&self, collector: impl Collector) {
        self.shared
            .lock()
            .inner
            .register_collector(Box::new(collector));
    }

    /// The current values as OpenMetrics text, which Prometheus and its relatives read; to be
    /// served with [`METRICS_CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.shared.lock().inner)
            .expect("writing to a string does not fail");
        text
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn check_name(name: &str) {
    let snake_case = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(snake_case, "the metric name `{name}` is not in snake case");
    for suffix in ["_total", "_info", "_bucket", "_sum", "_count", "_created"] {
        assert!(
            !name.ends_with(suffix),
            "the metric name `{name}` ends in `{suffix}`, which the format itself adds"
        );
    }
}

fn split_unit(name: &str) -> (&str, Option<Unit>) {
    let Some((stem, unit)) = name.rsplit_once('_') else {
        return (name, None);
    };
    let unit = match unit {
        "seconds" => Unit::Seconds,
        "bytes" => Unit::Bytes,
        "tokens" | "blocks" | "ratio" => Unit::Other(unit.to_owned()),
        _ => return (name, None),
    };
    (stem, Some(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
    struct Labels {
        model: &'static str,
    }

    #[test]
    fn names_carry_prefix_component_and_unit() {
        let registry = Registry::new();
        let frontend = registry.component("frontend");
        frontend.counter("requests", "Requests").inc();
        frontend
            .histogram("time_to_first_token_seconds", "TTFT", Buckets(&[0.1, 1.0]))
            .observe(0.5);
        frontend
            .family::<Labels, Counter>("prompt_tokens", "Prompt tokens")
            .get_or_create(&Labels { model: "m" })
            .inc_by(7);

        assert_eq!(
            registry.encode(),
            "# HELP forebay_frontend_requests Requests.\n\
             # TYPE forebay_frontend_requests counter\n\
             forebay_frontend_requests_total 1\n\
             # HELP forebay_frontend_time_to_first_token_seconds TTFT.\n\
             # TYPE forebay_frontend_time_to_first_token_seconds histogram\n\
             # UNIT forebay_frontend_time_to_first_token_seconds seconds\n\
             forebay_frontend_time_to_first_token_seconds_sum 0.5\n\
             forebay_frontend_time_to_first_token_seconds_count 1\n\
             forebay_frontend_time_to_first_token_seconds_bucket{le=\"0.1\"} 0\n\
             forebay_frontend_time_to_first_token_seconds_bucket{le=\"1.0\"} 1\n\
             forebay_frontend_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1\n\
             # HELP forebay_frontend_prompt_tokens Prompt tokens.\n\
             # TYPE forebay_frontend_prompt_tokens counter\n\
             # UNIT forebay_frontend_prompt_tokens tokens\n\
             forebay_frontend_prompt_tokens_total{model=\"m\"} 7\n\
             # EOF\n"
        );
    }

    #[test]
    fn a_name_registered_again_is_the_same_metric() {
        let registry = Registry::new();
        registry.counter("requests", "Requests").inc();
        let again = registry.clone().counter("requests", "Requests");
        again.inc();
        assert_eq!(again.get(), 2);
        assert_eq!(registry.encode().matches("# HELP").count(), 1);
    }

    #[test]
    #[should_panic(expected = "`forebay_requests` is registered as another type of metric")]
    fn a_name_has_one_type() {
        let registry = Registry::new();
        registry.counter("requests", "Requests");
        registry.gauge("requests", "Requests");
    }

    #[test]
    #[should_panic(expected = "ends in `_total`")]
    fn what_the_format_adds_is_not_repeated() {
        Registry::new().counter("requests_total", "Requests");
    }

    #[test]
    #[should_panic(expected = "not in snake case")]
    fn names_are_in_snake_case() {
        Registry::new().gauge("queueDepth", "Depth");
    }

    #[test]
    fn a_process_tells_what_it_is() {
        let text = Registry::for_process(&BuildInfo {
            service: "forebay",
            version: "1.2.3",
            revision: "abc",
        })
        .encode();
        let line = "forebay_build_info{service=\"forebay\",version=\"1.2.3\",revision=\"abc\"} 1";
        assert!(text.lines().any(|l| l == line), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
