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
    /// The names that the model is to have.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_protocols::openai::parse;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::sample::card;

    proptest! {
        /// A body that was damaged, or any bytes at all, is a change of what may change or none.
        #[test]
        fn any_body_is_a_change_or_refused(
            is_noise: bool,
            noise in vec(any::<u8>(), 0..40),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut body = br#"{"weight":0.5,"topology":{"zone":"a"},"lora_adapters":["l"],
                "aliases":["b",""],"max_batch_tokens":0,"max_running_sequences":7}"#.to_vec();
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let body = if is_noise { noise } else { body };
            if let Ok(change) = parse::<CardChange>(&body) {
                let mut changed = card();
                change.apply(&mut changed);
                prop_assert_ne!(changed.max_batch_tokens, Some(0));
                prop_assert_eq!((changed.model, changed.engine), (card().model, card().engine));
            }
        }
    }
}
