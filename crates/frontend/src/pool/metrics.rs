use std::fmt;
use std::sync::Arc;

use forebay_engine::remote::KvState;
use forebay_observability::EncodeLabelSet;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::counts::{PastCounts, PoolCounts};
use super::repair_counts::RepairCounts;
use crate::models::{ModelRegistry, ServedModel};

/// Tells at each scrape what the pools know: it costs the requests nothing.
#[derive(Debug)]
pub(crate) struct PoolCollector {
    models: ModelRegistry,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    model: String,
    digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    model: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairLabels {
    model: String,
    by: &'static str,
}

/// The pools of one model at the moment of a scrape.
#[derive(Default)]
struct Sample {
    model: String,
    /// By version, if there are any, how many workers are ready.
    versions: Vec<(String, u64)>,
    ready: u64,
    draining: u64,
    booked_requests: u64,
    booked_prefill_tokens: u64,
    index_blocks: u64,
    index_bytes: u64,
    /// Workers of whose cache something is missing here.
    kv_inexact: u64,
    /// The sums of what the workers last reported.
    running_requests: u64,
    waiting_requests: u64,
    kv_blocks: u64,
    kv_active_blocks: u64,
    pending_prefill_tokens: u64,
    /// Of the pools that are there, and of those that were.
    counts: PoolCounts,
}

/// A number of each pool.
struct NumberOfPool {
    name: &'static str,
    help: &'static str,
    unit: &'static str,
    value: fn(&Sample) -> u64,
}

const GAUGES: [NumberOfPool; 10] = [
    NumberOfPool {
        name: "forebay_frontend_booked_requests",
        help: "Choices that were sent to workers and have not ended",
        unit: "",
        value: |sample| sample.booked_requests,
    },
    NumberOfPool {
        name: "forebay_frontend_booked_prefill",
        help: "Prompt tokens that workers still have to compute, as far as is known here",
        unit: "tokens",
        value: |sample| sample.booked_prefill_tokens,
    },
    NumberOfPool {
        name: "forebay_frontend_router_index",
        help: "KV blocks of all workers that the router knows of",
        unit: "blocks",
        value: |sample| sample.index_blocks,
    },
    NumberOfPool {
        name: "forebay_frontend_router_index",
        help: "Memory of the router's prefix index",
        unit: "bytes",
        value: |sample| sample.index_bytes,
    },
    NumberOfPool {
        name: "forebay_frontend_kv_inexact_workers",
        help: "Workers of whose KV events some are missing here and were asked for",
        unit: "",
        value: |sample| sample.kv_inexact,
    },
    NumberOfPool {
        name: "forebay_frontend_worker_running_requests",
        help: "Choices that workers run, whoever sent them, as they last reported",
        unit: "",
        value: |sample| sample.running_requests,
    },
    NumberOfPool {
        name: "forebay_frontend_worker_waiting_requests",
        help: "Choices that wait in workers, whoever sent them, as they last reported",
        unit: "",
        value: |sample| sample.waiting_requests,
    },
    NumberOfPool {
        name: "forebay_frontend_worker_kv",
        help: "KV blocks that workers have, as they last reported",
        unit: "blocks",
        value: |sample| sample.kv_blocks,
    },
    NumberOfPool {
        name: "forebay_frontend_worker_kv_active",
        help: "KV blocks that running choices hold in workers, as these last reported",
        unit: "blocks",
        value: |sample| sample.kv_active_blocks,
    },
    NumberOfPool {
        name: "forebay_frontend_worker_pending_prefill",
        help: "Prompt tokens that workers still have to compute, as they last reported",
        unit: "tokens",
        value: |sample| sample.pending_prefill_tokens,
    },
];

const COUNTERS: [NumberOfPool; 1] = [NumberOfPool {
    name: "forebay_frontend_router_index_dropped",
    help: "KV blocks that the router's prefix index had no room for",
    unit: "blocks",
    value: |sample| sample.counts.dropped_blocks,
}];

impl NumberOfPool {
    fn unit(&self) -> Option<Unit> {
        match self.unit {
            "" => None,
            unit => Some(Unit::Other(unit.to_owned())),
        }
    }

    /// Encodes it for each pool, as a `metric`.
    fn encode<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        samples: &[Sample],
        metric: fn(u64) -> M,
    ) -> fmt::Result {
        let (unit, kind) = (self.unit(), metric(0).metric_type());
        let mut family = encoder.encode_descriptor(self.name, self.help, unit.as_ref(), kind)?;
        for sample in samples {
            let labels = sample.labels();
            metric((self.value)(sample)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl PoolCollector {
    pub(crate) fn new(models: ModelRegistry) -> Self {
        Self { models }
    }
}

impl Sample {
    /// A sample of each model; its versions come one after another.
    fn take(models: &[Arc<ServedModel>], past: &PastCounts) -> Vec<Self> {
        let mut samples = Vec::<Self>::new();
        for model in models {
            match samples.last_mut() {
                Some(sample) if sample.model == model.name() => sample.add(model),
                _ => {
                    let mut sample = Self {
                        model: model.name().to_owned(),
                        counts: past.of(model.name()),
                        ..Self::default()
                    };
                    sample.add(model);
                    samples.push(sample);
                }
            }
        }
        samples
    }

    fn add(&mut self, model: &ServedModel) {
        let pool = model.pool();
        let workers = pool.workers();
        let draining = workers.iter().filter(|worker| worker.is_draining).count() as u64;
        let ready = workers.len() as u64 - draining;
        if let Some(digest) = model.version() {
            self.versions.push((digest.to_owned(), ready));
        }
        self.ready += ready;
        self.draining += draining;
        for worker in &workers {
            self.booked_requests += worker.load.requests;
            self.booked_prefill_tokens += worker.load.prefill_tokens;
            self.index_blocks += worker.known_blocks as u64;
            self.kv_inexact += u64::from(worker.kv == Some(KvState::Repairing));
            let reported = &worker.reported;
            self.running_requests += u64::from(reported.running_requests);
            self.waiting_requests += u64::from(reported.waiting_requests);
            self.kv_blocks += u64::from(reported.kv_blocks_total);
            self.kv_active_blocks += u64::from(reported.kv_blocks_active);
            self.pending_prefill_tokens += reported.prefill_tokens_pending;
        }
        self.index_bytes += pool.index_bytes() as u64;
        self.counts.add(pool.counts());
    }
}

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (models, past) = self.models.served_and_past();
        let samples = Sample::take(&models, &past);
        workers(&mut encoder, &samples)?;
        versions(&mut encoder, &samples)?;
        repairs(&mut encoder, &samples)?;
        for gauge in &GAUGES {
            gauge.encode(&mut encoder, &samples, ConstGauge::<u64>::new)?;
        }
        for counter in &COUNTERS {
            counter.encode(&mut encoder, &samples, ConstCounter::<u64>::new)?;
        }
        Ok(())
    }
}

impl Sample {
    fn labels(&self) -> ModelLabels {
        ModelLabels {
            model: self.model.clone(),
        }
    }
}

fn workers(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "forebay_frontend_workers",
        "Workers by whether they take requests (ready) or not any more (draining)",
        None,
        ConstGauge::<u64>::new(0).metric_type(),
    )?;
    for sample in samples {
        for (state, count) in [("ready", sample.ready), ("draining", sample.draining)] {
            let labels = WorkerLabels {
                model: sample.model.clone(),
                state,
            };
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn versions(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "forebay_frontend_model_version_workers",
        "Workers that take requests, by the version of their model: several during a rolling upgrade",
        None,
        ConstGauge::<u64>::new(0).metric_type(),
    )?;
    for sample in samples {
        for (digest, ready) in &sample.versions {
            let labels = VersionLabels {
                model: sample.model.clone(),
                digest: digest.clone(),
            };
            ConstGauge::new(*ready).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn repairs(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "forebay_frontend_kv_repairs",
        "Times that KV events of a worker were missing and made up for: by the batches that were lost (range), by a snapshot, or by a snapshot because digests differed (digest)",
        None,
        ConstCounter::<u64>::new(0).metric_type(),
    )?;
    for sample in samples {
        for (by, count) in RepairCounts::KINDS.into_iter().zip(sample.counts.repairs) {
            let labels = RepairLabels {
                model: sample.model.clone(),
                by,
            };
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
