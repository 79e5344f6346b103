use forebay_observability::{Counter, EncodeLabelSet, Family, Gauge, Registry};

use crate::outcome::TaskEnd;
use crate::tasks::TaskKind;

/// `forebay_tasks_*`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    running: Family<TaskLabels, Gauge>,
    ended: Family<EndLabels, Counter>,
    pub(crate) blocking_waiting: Gauge,
    pub(crate) blocking_limit: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    kind: &'static str,
    task: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    kind: &'static str,
    task: &'static str,
    end: &'static str,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let registry = registry.component("tasks");
        Self {
            running: registry.family("running", "Tasks that run now"),
            ended: registry.family(
                "ended",
                "Tasks that ended, and how: finished, failed, panicked or cancelled",
            ),
            blocking_waiting: registry
                .gauge("blocking_waiting", "Blocking calls that wait for a thread"),
            blocking_limit: registry.gauge(
                "blocking_limit",
                "Blocking calls that may run at the same time",
            ),
        }
    }

    pub(crate) fn running(&self, kind: TaskKind, task: &'static str) -> Gauge {
        let labels = TaskLabels {
            kind: kind.as_str(),
            task,
        };
        self.running.get_or_create(&labels).clone()
    }

    pub(crate) fn count_end(&self, kind: TaskKind, task: &'static str, end: TaskEnd) {
        let labels = EndLabels {
            kind: kind.as_str(),
            task,
            end: end.as_str(),
        };
        self.ended.get_or_create(&labels).inc();
    }
}
