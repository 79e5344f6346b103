use std::collections::BTreeMap;

use forebay_engine::remote::{WorkerCard, WorkerRole};
use forebay_tokens::WorkerId;
use serde::Serialize;

use crate::WorkerHandle;

/// The body of `/metadata`.
#[derive(Debug, Serialize)]
pub(super) struct Metadata {
    /// None, before they have started.
    workers: Vec<WorkerMetadata>,
}

#[derive(Debug, Serialize)]
struct WorkerMetadata {
    /// As addresses have it: hexadecimal.
    worker: String,
    registered: bool,
    paused: bool,
    address: Option<String>,
    card: Card,
}

/// A card, with its digests in hexadecimal.
#[derive(Debug, Serialize)]
struct Card {
    model: String,
    aliases: Vec<String>,
    digest: String,
    weights: String,
    tokenizer: Option<String>,
    template: Option<String>,
    hash_rule: String,
    role: WorkerRole,
    temperature: Option<f32>,
    top_p: Option<f32>,
    context_length: u32,
    vocabulary_size: u32,
    block_size: usize,
    kv_blocks: u32,
    data_parallel_ranks: u32,
    /// Names, in lower case.
    capabilities: Vec<String>,
    max_batch_tokens: Option<u32>,
    max_running_sequences: Option<u32>,
    lora_adapters: Vec<String>,
    topology: BTreeMap<String, String>,
    weight: f64,
    /// How often it has changed.
    revision: u64,
}

impl Metadata {
    pub(super) fn of(workers: &[WorkerHandle]) -> Self {
        Self {
            workers: workers.iter().map(WorkerMetadata::of).collect(),
        }
    }
}

impl WorkerMetadata {
    fn of(worker: &WorkerHandle) -> Self {
        Self {
            worker: hexadecimal(worker.id()),
            registered: worker.is_registered(),
            paused: worker.is_paused(),
            address: worker.address(),
            card: Card::of((*worker.card()).clone()),
        }
    }
}

/// A worker's id as addresses have it.
pub(super) fn hexadecimal(worker: WorkerId) -> String {
    format!("{:016x}", worker.0)
}

impl Card {
    fn of(card: WorkerCard) -> Self {
        let capabilities = card.engine.capabilities.iter_names();
        Self {
            digest: card.digest().to_string(),
            model: card.model,
            aliases: card.aliases,
            weights: card.weights,
            tokenizer: card.tokenizer.map(|digest| digest.to_string()),
            template: card.template.map(|digest| digest.to_string()),
            hash_rule: card.hash_rule,
            role: card.role,
            temperature: card.sampling_defaults.temperature,
            top_p: card.sampling_defaults.top_p,
            context_length: card.engine.context_length,
            vocabulary_size: card.engine.vocabulary_size,
            block_size: card.engine.block_size.get(),
            kv_blocks: card.engine.kv_blocks,
            data_parallel_ranks: card.engine.data_parallel_ranks,
            capabilities: capabilities.map(|(name, _)| name.to_lowercase()).collect(),
            max_batch_tokens: card.max_batch_tokens,
            max_running_sequences: card.max_running_sequences,
            lora_adapters: card.lora_adapters,
            topology: card.topology,
            weight: card.weight,
            revision: card.revision,
        }
    }
}
