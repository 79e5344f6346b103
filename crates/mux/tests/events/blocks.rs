use std::collections::BTreeMap;

use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier};

/// What KV caches hold, naively.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Blocks(BTreeMap<(DpRank, Tier, CacheGroup, RoutingHash), u32>);

impl Blocks {
    pub(crate) fn apply(&mut self, at: DpRank, event: &KvEvent) {
        match event {
            KvEvent::Stored {
                tier,
                group,
                blocks,
                ..
            } => {
                for hash in blocks {
                    *self.0.entry((at, *tier, *group, *hash)).or_default() += 1;
                }
            }
            KvEvent::Removed {
                tier,
                group,
                blocks,
            } => {
                for hash in blocks {
                    let key = (at, *tier, *group, *hash);
                    if let Some(count) = self.0.get_mut(&key) {
                        *count -= 1;
                        if *count == 0 {
                            self.0.remove(&key);
                        }
                    }
                }
            }
            KvEvent::Cleared { tier } => self.0.retain(|key, _| (key.0, key.1) != (at, *tier)),
        }
    }

    pub(crate) fn forget(&mut self, at: DpRank) {
        self.0.retain(|key, _| key.0 != at);
    }

    /// Drops blocks beyond `most`.
    pub(crate) fn cap(&mut self, most: usize) {
        while self.0.len() > most {
            self.0.pop_first();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A rank's blocks, loose and in an order of their own, as an engine may tell them.
    pub(crate) fn tell(&self, of: DpRank) -> Vec<KvEvent> {
        let blocks = self.0.iter().rev().filter(|(key, _)| key.0 == of);
        let stored = |(key, count): (&(DpRank, Tier, CacheGroup, RoutingHash), &u32)| {
            let event = KvEvent::Stored {
                tier: key.1,
                group: key.2,
                parent: None,
                blocks: vec![key.3],
            };
            vec![event; *count as usize]
        };
        blocks.flat_map(stored).collect()
    }
}
