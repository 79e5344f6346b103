use std::fmt;

use forebay_engine::remote::KvFigures;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Workers, unit};

/// Tells at each scrape what the KV events of each engine come to, by the engine's place in
/// `/metadata`: as many series as the process has engines. One that is gone is left out.
#[derive(Debug)]
pub(super) struct KvCollector {
    workers: Workers,
}

struct Series {
    name: &'static str,
    help: &'static str,
    unit: &'static str,
    kind: MetricType,
    value: fn(&KvFigures) -> u64,
}

const SERIES: [Series; 6] = [
    Series {
        name: "forebay_worker_kv_announced",
        help: "KV blocks that the engine has announced and holds",
        unit: "blocks",
        kind: MetricType::Gauge,
        value: |figures| figures.announced_blocks,
    },
    Series {
        name: "forebay_worker_kv_ring_batches",
        help: "Batches of KV events that are kept for followers that missed some",
        unit: "",
        kind: MetricType::Gauge,
        value: |figures| figures.ring_batches,
    },
    Series {
        name: "forebay_worker_kv_ring",
        help: "Bytes of those batches",
        unit: "bytes",
        kind: MetricType::Gauge,
        value: |figures| figures.ring_bytes,
    },
    Series {
        name: "forebay_worker_kv_ring_limit",
        help: "Bytes that they may have",
        unit: "bytes",
        kind: MetricType::Gauge,
        value: |figures| figures.ring_limit_bytes,
    },
    Series {
        name: "forebay_worker_kv_ranges_served",
        help: "Followers that were told the batches they missed",
        unit: "",
        kind: MetricType::Counter,
        value: |figures| figures.ranges,
    },
    Series {
        name: "forebay_worker_kv_snapshots_served",
        help: "Followers that were told of all blocks",
        unit: "",
        kind: MetricType::Counter,
        value: |figures| figures.snapshots,
    },
];

impl KvCollector {
    pub(super) fn new(workers: Workers) -> Self {
        Self { workers }
    }
}

impl Collector for KvCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let workers = self.workers.get().map_or(&[][..], Vec::as_slice);
        let figures = workers.iter().map(|worker| worker.kv_figures());
        let engines = figures.enumerate();
        let engines = engines.filter_map(|(place, figures)| Some((place, figures?)));
        let engines: Vec<_> = engines.collect();
        for series in &SERIES {
            let unit = unit(series.unit);
            let mut family =
                encoder.encode_descriptor(series.name, series.help, unit.as_ref(), series.kind)?;
            for (place, figures) in &engines {
                let labels = [("engine", *place as u64)];
                let value = (series.value)(figures);
                let encoder = family.encode_family(&labels)?;
                match series.kind {
                    MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
                    _ => ConstGauge::new(value).encode(encoder)?,
                }
            }
        }
        Ok(())
    }
}
