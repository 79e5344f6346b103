//! Events in pieces that are not too large.

use std::iter;

use forebay_tokens::{KvEvent, RoutingHash};

use super::batch::blocks_of;

/// Packs events, in order, into lists that name at most `max_blocks` blocks each.
pub(super) fn pack(
    events: impl IntoIterator<Item = KvEvent>,
    max_blocks: usize,
) -> impl Iterator<Item = Vec<KvEvent>> {
    let pieces = events
        .into_iter()
        .flat_map(move |event| split(event, max_blocks));
    let mut pieces = pieces.peekable();
    iter::from_fn(move || {
        let first = pieces.next()?;
        let mut blocks = blocks_of(&first);
        let mut packed = vec![first];
        while let Some(event) = pieces.next_if(|event| blocks + blocks_of(event) <= max_blocks) {
            blocks += blocks_of(&event);
            packed.push(event);
        }
        Some(packed)
    })
}

/// An event as several that name at most `max_blocks` blocks each.
fn split(event: KvEvent, max_blocks: usize) -> Vec<KvEvent> {
    if blocks_of(&event) <= max_blocks {
        return vec![event];
    }
    match event {
        KvEvent::Stored {
            tier,
            group,
            mut parent,
            blocks,
        } => {
            let piece = |blocks: &[RoutingHash]| {
                let last = blocks.last().copied();
                KvEvent::Stored {
                    tier,
                    group,
                    parent: std::mem::replace(&mut parent, last),
                    blocks: blocks.to_vec(),
                }
            };
            blocks.chunks(max_blocks).map(piece).collect()
        }
        KvEvent::Removed {
            tier,
            group,
            blocks,
        } => {
            let piece = |blocks: &[RoutingHash]| KvEvent::Removed {
                tier,
                group,
                blocks: blocks.to_vec(),
            };
            blocks.chunks(max_blocks).map(piece).collect()
        }
        KvEvent::Cleared { .. } => vec![event],
    }
}

#[cfg(test)]
mod tests {
    use forebay_tokens::{CacheGroup, Tier};

    use super::*;

    fn stored(parent: Option<u64>, hashes: impl IntoIterator<Item = u64>) -> KvEvent {
        KvEvent::Stored {
            tier: Tier::G1,
            group: CacheGroup(0),
            parent: parent.map(RoutingHash),
            blocks: hashes.into_iter().map(RoutingHash).collect(),
        }
    }

    #[test]
    fn a_long_run_goes_on_where_it_was_cut() {
        let packed: Vec<_> = pack([stored(None, 1..=5)], 2).collect();
        let expected = [
            vec![stored(None, [1, 2])],
            vec![stored(Some(2), [3, 4])],
            vec![stored(Some(4), [5])],
        ];
        assert_eq!(packed, expected);
    }

    #[test]
    fn short_events_share_a_piece() {
        let cleared = KvEvent::Cleared { tier: Tier::G2 };
        let events = [
            stored(None, [1]),
            cleared,
            stored(None, [2]),
            stored(None, [3]),
        ];
        let packed: Vec<_> = pack(events.clone(), 2).collect();
        assert_eq!(packed, [events[..3].to_vec(), events[3..].to_vec()]);
    }
}
