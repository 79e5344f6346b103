use std::collections::BTreeMap;

use forebay_engine::remote::WorkerCard;
use serde::Deserialize;

/// The body of `POST /engine/card`: what is to be another one; what is absent stays. The names are
/// those of `/metadata`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CardChange {
    weight: Option<f64>,
    /// All of them.
    topology: Option<BTreeMap<String, String>>,
    /// All of them.
    lora_adapters: Option<Vec<String>>,
    /// All of them.
    aliases: Option<Vec<String>>,
    /// 0: not known.
    max_batch_tokens: Option<u32>,
    /// 0: not known.
    max_running_sequences: Option<u32>,
}

impl CardChange {
    /// The names that it adds.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().flatten().map(String::as_str)
    }

    /// Makes the change.
    pub(super) fn apply(self, card: &mut WorkerCard) {
        set(&mut card.weight, self.weight);
        set(&mut card.topology, self.topology);
        set(&mut card.lora_adapters, self.lora_adapters);
        set(&mut card.aliases, self.aliases);
        let known = |number: u32| Some(number).filter(|number| *number > 0);
        set(&mut card.max_batch_tokens, self.max_batch_tokens.map(known));
        set(
            &mut card.max_running_sequences,
            self.max_running_sequences.map(known),
        );
    }
}

fn set<T>(field: &mut T, to: Option<T>) {
    if let Some(to) = to {
        *field = to;
    }
}
