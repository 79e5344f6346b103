use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_protocols::worker::SamplingDefaults;
use forebay_protocols::{Error, worker};
use forebay_tokens::BlockSize;
use serde::{Deserialize, Serialize};

use super::artefact::ArtefactDigest;
use super::card_digest::CardDigest;
use super::frames::{broken, decode, encode};
use crate::{Capabilities, EngineInfo};

/// The rule of this version's routing hashes: xxh3-64 with seed 1337, chained
/// ([`RoutingHash`](forebay_tokens::RoutingHash)).
const HASH_RULE: &str = "xxh3-64-1337";

/// What an engine may have in data-parallel ranks: followers of its KV events keep something for
/// each.
const MOST_RANKS: u32 = 4096;

/// What a worker says about itself in its [`Instance::card`](forebay_runtime::Instance::card): all
/// that a frontend must know to use it, or where to get it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerCard {
    /// The name under which its model is served.
    pub model: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Its engine.
    pub engine: EngineInfo,
    /// Names the weights, such as by their digest: workers with equal ones give equal answers.
    pub weights: String,
    /// The tokenizer, which the worker gives to who asks for it
    /// ([`RemoteEngine::artefact`](super::RemoteEngine::artefact)).
    pub tokenizer: Option<ArtefactDigest>,
    /// The chat template, which the worker gives, too.
    pub template: Option<ArtefactDigest>,
    /// How routing hashes are made of tokens: `xxh3-64-1337`.
    pub hash_rule: String,
    /// How tokens are drawn where a client does not say.
    pub sampling_defaults: SamplingDefaults,
    /// What it does of a request.
    pub role: WorkerRole,
    /// Tokens that a step of its engine takes at most, if that is known.
    pub max_batch_tokens: Option<u32>,
    /// Sequences that run at a time at most, if that is known.
    pub max_running_sequences: Option<u32>,
    /// LoRA adapters that it has.
    pub lora_adapters: Vec<String>,
    /// Where it is, as the operator names it, such as `zone` and `rack`.
    pub topology: BTreeMap<String, String>,
    /// Its part in its version's share of the requests for the model: the weights of a version's
    /// ready workers add up. 0 to [`Self::MAX_WEIGHT`]. Which worker of a version gets a request
    /// does not depend on it.
    pub weight: f64,
    /// Counts the changes of the card since the worker was started: of two cards of a worker the
    /// later one has the larger.
    pub revision: u64,
}

/// What a worker does of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerRole {
    /// All of it.
    #[default]
    Aggregated,
    /// It fills the KV cache from the prompt.
    Prefill,
    /// It generates from a KV cache that was handed over.
    Decode,
    /// It encodes media.
    Encode,
}

impl WorkerCard {
    /// The largest [`Self::weight`]: sums of them stay far from what a number can hold.
    pub const MAX_WEIGHT: f64 = 1e6;

    /// The card of a worker that does all of a request, without anything that need not be known.
    pub fn new(model: impl Into<String>, engine: EngineInfo) -> Self {
        Self {
            model: model.into(),
            aliases: Vec::new(),
            engine,
            weights: String::new(),
            tokenizer: None,
            template: None,
            hash_rule: HASH_RULE.into(),
            sampling_defaults: SamplingDefaults::default(),
            role: WorkerRole::Aggregated,
            max_batch_tokens: None,
            max_running_sequences: None,
            lora_adapters: Vec::new(),
            topology: BTreeMap::new(),
            weight: 1.0,
            revision: 0,
        }
    }

    /// Names the pool of the workers that can take one another's place.
    pub fn digest(&self) -> CardDigest {
        CardDigest::of(self)
    }

    /// The card as it is registered: a `WorkerCard` of `worker.proto`.
    pub fn encode(&self) -> Bytes {
        encode(&self.message())
    }

    /// The card as a part of another message.
    pub(super) fn message(&self) -> worker::WorkerCard {
        let card = self.clone();
        let engine = card.engine;
        let digest = |digest: Option<ArtefactDigest>| digest.map_or(Vec::new(), |d| d.0.to_vec());
        worker::WorkerCard {
            model: card.model,
            engine: Some(worker::EngineInfo {
                model: engine.model,
                capabilities: engine.capabilities.bits(),
                context_length: engine.context_length,
                vocabulary_size: engine.vocabulary_size,
                block_size: u32::try_from(engine.block_size.get()).expect("made of a u32"),
                kv_blocks: engine.kv_blocks,
                eos_token_ids: engine.eos_token_ids,
                data_parallel_ranks: engine.data_parallel_ranks,
            }),
            aliases: card.aliases,
            weights: card.weights,
            tokenizer: digest(card.tokenizer),
            template: digest(card.template),
            hash_rule: card.hash_rule,
            sampling_defaults: Some(card.sampling_defaults),
            role: write_role(card.role).into(),
            max_batch_tokens: card.max_batch_tokens.unwrap_or(0),
            max_running_sequences: card.max_running_sequences.unwrap_or(0),
            lora_adapters: card.lora_adapters,
            topology: (card.topology.into_iter())
                .map(|(name, value)| worker::TopologyLabel { name, value })
                .collect(),
            weight: Some(card.weight),
            revision: card.revision,
        }
    }

    /// Reads a card. Capabilities that this version does not know are left out.
    ///
    /// # Errors
    ///
    /// `BackendProtocol`, if it is no card, lacks what an engine must say, has a role that this
    /// version does not know, a weight out of its range, or sampling defaults that are no numbers.
    pub fn decode(card: Bytes) -> Result<Self, Error> {
        Self::of_message(decode(card)?)
    }

    /// Reads a card that was a part of another message; see [`Self::decode`].
    pub(super) fn of_message(card: worker::WorkerCard) -> Result<Self, Error> {
        let role = read_role(card.role)?;
        let engine = card.engine.ok_or_else(|| broken("a card without engine"))?;
        if !(1..=MOST_RANKS).contains(&engine.data_parallel_ranks) {
            return Err(broken("an engine of no or too many data-parallel ranks"));
        }
        let weight = card.weight.unwrap_or(1.0);
        if !Self::is_weight(weight) {
            return Err(broken("a weight out of its range"));
        }
        let sampling_defaults = card.sampling_defaults.unwrap_or_default();
        let drawn = [sampling_defaults.temperature, sampling_defaults.top_p];
        if drawn.iter().flatten().any(|number| number.is_nan()) {
            return Err(broken("sampling defaults that are no numbers"));
        }
        let hash_rule = match card.hash_rule {
            rule if rule.is_empty() => HASH_RULE.into(),
            rule => rule,
        };
        Ok(Self {
            model: card.model,
            aliases: card.aliases,
            engine: EngineInfo {
                model: engine.model,
                capabilities: Capabilities::from_bits_truncate(engine.capabilities),
                context_length: engine.context_length,
                vocabulary_size: engine.vocabulary_size,
                block_size: BlockSize::new(engine.block_size)
                    .map_err(|error| broken(&error.to_string()))?,
                kv_blocks: engine.kv_blocks,
                eos_token_ids: engine.eos_token_ids,
                data_parallel_ranks: engine.data_parallel_ranks,
            },
            weights: card.weights,
            tokenizer: read_digest(&card.tokenizer)?,
            template: read_digest(&card.template)?,
            hash_rule,
            sampling_defaults,
            role,
            max_batch_tokens: Some(card.max_batch_tokens).filter(|tokens| *tokens > 0),
            max_running_sequences: Some(card.max_running_sequences).filter(|most| *most > 0),
            lora_adapters: card.lora_adapters,
            topology: (card.topology.into_iter())
                .map(|label| (label.name, label.value))
                .collect(),
            weight,
            revision: card.revision,
        })
    }

    /// Whether a worker can have this weight.
    pub fn is_weight(weight: f64) -> bool {
        (0.0..=Self::MAX_WEIGHT).contains(&weight)
    }
}

fn write_role(role: WorkerRole) -> worker::Role {
    match role {
        WorkerRole::Aggregated => worker::Role::Aggregated,
        WorkerRole::Prefill => worker::Role::Prefill,
        WorkerRole::Decode => worker::Role::Decode,
        WorkerRole::Encode => worker::Role::Encode,
    }
}

fn read_role(role: i32) -> Result<WorkerRole, Error> {
    match worker::Role::try_from(role) {
        Ok(worker::Role::Unspecified | worker::Role::Aggregated) => Ok(WorkerRole::Aggregated),
        Ok(worker::Role::Prefill) => Ok(WorkerRole::Prefill),
        Ok(worker::Role::Decode) => Ok(WorkerRole::Decode),
        Ok(worker::Role::Encode) => Ok(WorkerRole::Encode),
        Err(_) => Err(broken("a role that this version does not know")),
    }
}

fn read_digest(bytes: &[u8]) -> Result<Option<ArtefactDigest>, Error> {
    match bytes {
        [] => Ok(None),
        bytes => match bytes.try_into() {
            Ok(bytes) => Ok(Some(ArtefactDigest(bytes))),
            Err(_) => Err(broken("a digest that is not of 32 bytes")),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use forebay_protocols::ErrorClass;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// One that has no more than it must.
    pub(in crate::remote) fn bare() -> WorkerCard {
        let engine = EngineInfo {
            model: "own".into(),
            capabilities: Capabilities::all(),
            context_length: 4096,
            vocabulary_size: 32_000,
            block_size: BlockSize::new(64).unwrap(),
            kv_blocks: 1000,
            eos_token_ids: vec![2, 7],
            data_parallel_ranks: 3,
        };
        WorkerCard::new("served", engine)
    }

    fn card() -> WorkerCard {
        WorkerCard {
            aliases: vec!["other".into()],
            weights: "sha256:00".into(),
            tokenizer: Some(ArtefactDigest([1; 32])),
            template: Some(ArtefactDigest([2; 32])),
            sampling_defaults: SamplingDefaults {
                temperature: Some(0.5),
                top_p: None,
            },
            role: WorkerRole::Decode,
            max_batch_tokens: Some(256),
            max_running_sequences: Some(32),
            lora_adapters: vec!["adapter".into()],
            topology: [("zone".into(), "a".into()), ("rack".into(), "7".into())].into(),
            weight: 0.25,
            revision: 7,
            ..bare()
        }
    }

    proptest! {
        /// What is read of a card that was damaged on its way can be told on, and read again.
        #[test]
        fn any_bytes_are_a_card_or_none(
            damage in vec((any::<Index>(), any::<u8>()), 0..4),
            noise in vec(any::<u8>(), 0..80),
            is_noise: bool,
        ) {
            let mut bytes = card().encode().to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let bytes = if is_noise { noise } else { bytes };
            if let Ok(card) = WorkerCard::decode(bytes.into()) {
                prop_assert_eq!(WorkerCard::decode(card.encode()).unwrap(), card);
            }
        }
    }

    fn message() -> worker::WorkerCard {
        decode(card().encode()).unwrap()
    }

    #[test]
    fn a_card_is_read_as_it_was_written() {
        assert_eq!(WorkerCard::decode(card().encode()).unwrap(), card());
        let least = WorkerCard::new("served", card().engine);
        assert_eq!(WorkerCard::decode(least.encode()).unwrap(), least);
    }

    #[test]
    fn what_is_no_card_is_refused() {
        type Change = fn(&mut worker::WorkerCard);
        let changes: [Change; 10] = [
            |card| card.sampling_defaults.as_mut().unwrap().top_p = Some(f32::NAN),
            |card| card.engine = None,
            |card| card.engine.as_mut().unwrap().data_parallel_ranks = 0,
            |card| card.engine.as_mut().unwrap().data_parallel_ranks = MOST_RANKS + 1,
            |card| card.engine.as_mut().unwrap().block_size = 0,
            |card| card.template = vec![0; 31],
            |card| card.role = 99,
            |card| card.weight = Some(-1.0),
            |card| card.weight = Some(f64::NAN),
            |card| card.weight = Some(f64::INFINITY),
        ];
        let changed = changes.map(|change| {
            let mut card = message();
            change(&mut card);
            encode(&card)
        });
        let bad = [Bytes::new(), Bytes::from_static(b"\xff\xff")];
        for card in changed.into_iter().chain(bad) {
            let error = WorkerCard::decode(card).unwrap_err();
            assert_eq!(error.class, ErrorClass::BackendProtocol);
        }
    }

    #[test]
    fn capabilities_of_the_future_are_left_out() {
        let mut message = message();
        message.engine.as_mut().unwrap().capabilities |= 1 << 31;
        let read = WorkerCard::decode(encode(&message)).unwrap();
        assert_eq!(read.engine.capabilities, Capabilities::all());
    }

    /// The card of a worker that is too old to say more.
    #[test]
    fn a_card_of_old_is_read() {
        let old = worker::WorkerCard {
            model: "served".into(),
            engine: message().engine,
            ..Default::default()
        };
        let read = WorkerCard::decode(encode(&old)).unwrap();
        assert_eq!(read, WorkerCard::new("served", card().engine));
    }

    #[test]
    fn the_digest_is_what_it_always_was() {
        let digest = card().digest().to_string();
        assert_eq!(
            digest,
            "d49dd8651e0bdfc59be2559a2b9d8cbe9b2c82eee858fae4b5c9d6034b4d1865"
        );
    }

    #[test]
    fn what_changes_answers_or_hashes_changes_the_digest() {
        type Change = fn(&mut WorkerCard);
        let inside: [Change; 7] = [
            |card| card.weights.push('1'),
            |card| card.tokenizer = None,
            |card| card.template = Some(ArtefactDigest([3; 32])),
            |card| (card.tokenizer, card.template) = (card.template, card.tokenizer),
            |card| card.engine.context_length += 1,
            |card| card.engine.block_size = BlockSize::new(32).unwrap(),
            |card| card.hash_rule.push('1'),
        ];
        let digests = inside.map(|change| {
            let mut card = card();
            change(&mut card);
            card.digest()
        });
        let all: BTreeSet<_> = digests.into_iter().chain([card().digest()]).collect();
        assert_eq!(all.len(), inside.len() + 1);
    }

    #[test]
    fn what_differs_within_a_pool_does_not_change_the_digest() {
        type Change = fn(&mut WorkerCard);
        let outside: [Change; 11] = [
            |card| card.model.clear(),
            |card| card.aliases.clear(),
            |card| card.engine.kv_blocks += 1,
            |card| card.engine.data_parallel_ranks += 1,
            |card| card.role = WorkerRole::Prefill,
            |card| card.max_batch_tokens = None,
            |card| card.lora_adapters.clear(),
            |card| card.topology.clear(),
            |card| card.sampling_defaults.temperature = None,
            |card| card.weight = 0.0,
            |card| card.revision += 1,
        ];
        for change in outside {
            let mut changed = card();
            change(&mut changed);
            assert_ne!(changed, card());
            assert_eq!(changed.digest(), card().digest());
        }
    }
}
