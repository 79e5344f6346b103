use std::fmt;

use forebay_engine::Load;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Workers, unit};
use crate::WorkerHandle;

/// Tells at each scrape what the engines of the process have to do and hold, all together: it costs
/// the requests nothing. An engine that is gone counts as nothing.
#[derive(Debug)]
pub(super) struct LoadCollector {
    workers: Workers,
}

struct LoadGauge {
    name: &'static str,
    help: &'static str,
    unit: &'static str,
    value: fn(&Load) -> u64,
}

const GAUGES: [LoadGauge; 6] = [
    LoadGauge {
        name: "forebay_worker_running_requests",
        help: "Choices that the engines compute",
        unit: "",
        value: |load| load.running_requests.into(),
    },
    LoadGauge {
        name: "forebay_worker_waiting_requests",
        help: "Choices that wait in the engines",
        unit: "",
        value: |load| load.waiting_requests.into(),
    },
    LoadGauge {
        name: "forebay_worker_pending_prefill",
        help: "Prompt tokens that the engines still have to compute",
        unit: "tokens",
        value: |load| load.prefill_tokens_pending,
    },
    LoadGauge {
        name: "forebay_worker_kv_active",
        help: "KV blocks that choices hold",
        unit: "blocks",
        value: |load| load.kv_blocks_active.into(),
    },
    LoadGauge {
        name: "forebay_worker_kv_cached",
        help: "KV blocks that no choice holds, and that a prompt can still use",
        unit: "blocks",
        value: |load| load.kv_blocks_cached.into(),
    },
    LoadGauge {
        name: "forebay_worker_kv",
        help: "KV blocks in all",
        unit: "blocks",
        value: |load| load.kv_blocks_total.into(),
    },
];

impl LoadCollector {
    pub(super) fn new(workers: Workers) -> Self {
        Self { workers }
    }
}

impl Collector for LoadCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let workers = self.workers.get().map_or(&[][..], Vec::as_slice);
        let loads: Vec<_> = workers.iter().filter_map(WorkerHandle::load).collect();
        for gauge in &GAUGES {
            let sum = ConstGauge::<u64>::new(loads.iter().map(gauge.value).sum());
            let unit = unit(gauge.unit);
            let kind = sum.metric_type();
            let family = encoder.encode_descriptor(gauge.name, gauge.help, unit.as_ref(), kind)?;
            sum.encode(family)?;
        }
        Ok(())
    }
}
