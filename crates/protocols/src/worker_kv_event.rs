//! KV events' form on the wire between workers and routers.

use forebay_tokens::{CacheGroup, KvEvent, RoutingHash, Tier};

use crate::worker::{self, kv_event::Change};

/// A KV event that this version does not know, or an empty one. Events are hints: a reader leaves
/// it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the KV event is of an unknown kind, tier or cache group, or has no blocks")]
pub struct UnknownKvEvent;

impl From<Tier> for worker::Tier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::G1 => Self::G1,
            Tier::G2 => Self::G2,
            Tier::G3 => Self::G3,
            Tier::G4 => Self::G4,
        }
    }
}

impl TryFrom<worker::Tier> for Tier {
    type Error = UnknownKvEvent;

    fn try_from(tier: worker::Tier) -> Result<Self, UnknownKvEvent> {
        match tier {
            worker::Tier::Unspecified => Err(UnknownKvEvent),
            worker::Tier::G1 => Ok(Self::G1),
            worker::Tier::G2 => Ok(Self::G2),
            worker::Tier::G3 => Ok(Self::G3),
            worker::Tier::G4 => Ok(Self::G4),
        }
    }
}

impl From<KvEvent> for worker::KvEvent {
    fn from(event: KvEvent) -> Self {
        let change = match event {
            KvEvent::Stored {
                tier,
                group,
                parent,
                blocks,
            } => Change::Stored(worker::KvStored {
                tier: worker::Tier::from(tier).into(),
                group: group.0.into(),
                parent: parent.map(|hash| hash.0),
                blocks: numbers(blocks),
            }),
            KvEvent::Removed {
                tier,
                group,
                blocks,
            } => Change::Removed(worker::KvRemoved {
                tier: worker::Tier::from(tier).into(),
                group: group.0.into(),
                blocks: numbers(blocks),
            }),
            KvEvent::Cleared { tier } => Change::Cleared(worker::KvCleared {
                tier: worker::Tier::from(tier).into(),
            }),
        };
        Self {
            change: Some(change),
        }
    }
}

impl TryFrom<worker::KvEvent> for KvEvent {
    type Error = UnknownKvEvent;

    fn try_from(event: worker::KvEvent) -> Result<Self, UnknownKvEvent> {
        match event.change.ok_or(UnknownKvEvent)? {
            Change::Stored(stored) => Ok(Self::Stored {
                tier: stored.tier().try_into()?,
                group: group(stored.group)?,
                parent: stored.parent.map(RoutingHash),
                blocks: hashes(stored.blocks)?,
            }),
            Change::Removed(removed) => Ok(Self::Removed {
                tier: removed.tier().try_into()?,
                group: group(removed.group)?,
                blocks: hashes(removed.blocks)?,
            }),
            Change::Cleared(cleared) => Ok(Self::Cleared {
                tier: cleared.tier().try_into()?,
            }),
        }
    }
}

fn numbers(blocks: Vec<RoutingHash>) -> Vec<u64> {
    blocks.into_iter().map(|hash| hash.0).collect()
}

fn hashes(blocks: Vec<u64>) -> Result<Vec<RoutingHash>, UnknownKvEvent> {
    match blocks.is_empty() {
        true => Err(UnknownKvEvent),
        false => Ok(blocks.into_iter().map(RoutingHash).collect()),
    }
}

fn group(group: u32) -> Result<CacheGroup, UnknownKvEvent> {
    let group = u8::try_from(group).map_err(|_| UnknownKvEvent)?;
    Ok(CacheGroup(group))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn events_cross_the_wire_whole() {
        let blocks = vec![RoutingHash(1), RoutingHash(u64::MAX)];
        let mut events = Vec::new();
        for tier in [Tier::G1, Tier::G2, Tier::G3, Tier::G4] {
            for parent in [None, Some(RoutingHash(0)), Some(RoutingHash(7))] {
                events.push(KvEvent::Stored {
                    tier,
                    group: CacheGroup(255),
                    parent,
                    blocks: blocks.clone(),
                });
            }
            events.push(KvEvent::Removed {
                tier,
                group: CacheGroup(0),
                blocks: blocks.clone(),
            });
            events.push(KvEvent::Cleared { tier });
        }
        for event in events {
            let bytes = worker::KvEvent::from(event.clone()).encode_to_vec();
            let back = worker::KvEvent::decode(&bytes[..]).unwrap();
            assert_eq!(KvEvent::try_from(back), Ok(event));
        }
    }

    #[test]
    fn events_of_the_future_are_known_as_such() {
        let removed = |tier, group, blocks| worker::KvEvent {
            change: Some(Change::Removed(worker::KvRemoved {
                tier,
                group,
                blocks,
            })),
        };
        let unknown = [
            worker::KvEvent::default(),
            removed(0, 0, vec![1]),
            removed(99, 0, vec![1]),
            removed(1, 256, vec![1]),
            removed(1, 0, vec![]),
        ];
        for event in unknown {
            assert_eq!(KvEvent::try_from(event), Err(UnknownKvEvent));
        }
        assert!(KvEvent::try_from(removed(1, 0, vec![1])).is_ok());
    }
}
