use std::collections::BTreeMap;

use forebay_tokens::{CacheGroup, KvEvent, RoutingHash, Tier};
use rustc_hash::FxHashMap;

use super::runs::{Block, runs};

/// A table with room for more than this gives memory back when it has become nearly empty.
const SMALL: usize = 1024;

/// The blocks of one rank's KV cache, each as often as it was stored and not removed.
///
/// A block takes 25 bytes of a table that is between 7/16 and 7/8 full: 29 to 58 bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    tables: BTreeMap<(Tier, CacheGroup), Table>,
}

type Table = FxHashMap<RoutingHash, Held>;

/// 16 bytes: an `Option` for the parent would make it 24.
#[derive(Clone, Copy, Debug)]
struct Held {
    parent: u64,
    count: u32,
    has_parent: bool,
}

impl Held {
    fn parent(self) -> Option<RoutingHash> {
        self.has_parent.then_some(RoutingHash(self.parent))
    }
}

impl Holdings {
    /// Takes an event, and gives what of it had an effect.
    pub(super) fn apply(&mut self, event: KvEvent) -> Option<KvEvent> {
        match event {
            KvEvent::Stored {
                tier,
                group,
                parent,
                ref blocks,
            } => {
                let table = self.tables.entry((tier, group)).or_default();
                let mut before = parent;
                for hash in blocks {
                    let held = table.entry(*hash).or_insert(Held {
                        parent: before.map_or(0, |parent| parent.0),
                        count: 0,
                        has_parent: before.is_some(),
                    });
                    held.count += 1;
                    before = Some(*hash);
                }
                (!blocks.is_empty()).then_some(event)
            }
            KvEvent::Removed {
                tier,
                group,
                mut blocks,
            } => {
                let table = self.tables.get_mut(&(tier, group))?;
                blocks.retain(|hash| remove(table, *hash));
                if table.is_empty() {
                    self.tables.remove(&(tier, group));
                } else if table.capacity() > SMALL && table.len() < table.capacity() / 8 {
                    table.shrink_to(2 * table.len());
                }
                (!blocks.is_empty()).then_some(KvEvent::Removed {
                    tier,
                    group,
                    blocks,
                })
            }
            KvEvent::Cleared { tier } => {
                let tables = self.tables.len();
                self.tables.retain(|(of, _), _| *of != tier);
                (self.tables.len() < tables).then_some(event)
            }
        }
    }

    /// What makes these holdings out of `before`, as effective events.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<KvEvent> {
        let mut events = Vec::new();
        for (place, old) in &before.tables {
            let blocks = surplus(old, self.tables.get(place));
            let blocks = blocks.flat_map(|block| (0..block.count).map(move |_| block.hash));
            let blocks: Vec<_> = blocks.collect();
            if !blocks.is_empty() {
                events.push(KvEvent::Removed {
                    tier: place.0,
                    group: place.1,
                    blocks,
                });
            }
        }
        for (place, new) in &self.tables {
            let blocks = surplus(new, before.tables.get(place)).collect();
            events.extend(runs(*place, blocks));
        }
        events
    }

    /// All blocks, table by table.
    pub(super) fn blocks(&self) -> impl Iterator<Item = ((Tier, CacheGroup), Vec<Block>)> {
        let tables = self.tables.iter();
        tables.map(|(place, table)| (*place, surplus(table, None).collect()))
    }

    /// How many distinct blocks there are.
    pub(super) fn len(&self) -> usize {
        self.tables.values().map(Table::len).sum()
    }
}

/// Takes one occurrence of a block out, if there is any.
fn remove(table: &mut Table, hash: RoutingHash) -> bool {
    let Some(held) = table.get_mut(&hash) else {
        return false;
    };
    held.count -= 1;
    if held.count == 0 {
        table.remove(&hash);
    }
    true
}

/// What `table` holds beyond `other`.
fn surplus<'a>(table: &'a Table, other: Option<&'a Table>) -> impl Iterator<Item = Block> + 'a {
    table.iter().filter_map(move |(hash, held)| {
        let there = other.and_then(|other| other.get(hash));
        let there = there.map_or(0, |there| there.count);
        let count = held.count.saturating_sub(there);
        (count > 0).then_some(Block {
            hash: *hash,
            parent: held.parent(),
            count,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_takes_what_is_documented() {
        assert_eq!(size_of::<(RoutingHash, Held)>(), 24);
    }

    #[test]
    fn memory_returns_after_churn() {
        let blocks: Vec<_> = (0..100_000).map(RoutingHash).collect();
        let (tier, group) = (Tier::G1, CacheGroup(0));
        let mut holdings = Holdings::default();
        holdings.apply(KvEvent::Stored {
            tier,
            group,
            parent: None,
            blocks: blocks.clone(),
        });
        let capacity = |holdings: &Holdings| holdings.tables[&(tier, group)].capacity();
        assert!(capacity(&holdings) >= 100_000);
        for piece in blocks[100..].chunks(1000) {
            holdings.apply(KvEvent::Removed {
                tier,
                group,
                blocks: piece.to_vec(),
            });
        }
        assert_eq!(holdings.len(), 100);
        assert!(capacity(&holdings) <= 2 * SMALL);
        holdings.apply(KvEvent::Removed {
            tier,
            group,
            blocks: blocks[..100].to_vec(),
        });
        assert!(holdings.tables.is_empty());
    }

    #[test]
    fn only_what_has_an_effect_is_told() {
        let (tier, group) = (Tier::G1, CacheGroup(0));
        let removed = |hashes: &[u64]| KvEvent::Removed {
            tier,
            group,
            blocks: hashes.iter().copied().map(RoutingHash).collect(),
        };
        let stored = KvEvent::Stored {
            tier,
            group,
            parent: None,
            blocks: vec![RoutingHash(1), RoutingHash(1)],
        };
        let mut holdings = Holdings::default();
        assert_eq!(holdings.apply(removed(&[1])), None);
        assert_eq!(holdings.apply(KvEvent::Cleared { tier }), None);
        assert_eq!(holdings.apply(stored.clone()), Some(stored));
        assert_eq!(holdings.apply(removed(&[2, 1])), Some(removed(&[1])));
        assert_eq!(holdings.apply(removed(&[1, 1])), Some(removed(&[1])));
        assert_eq!(holdings.apply(removed(&[1])), None);
    }
}
