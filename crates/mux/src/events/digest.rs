use std::collections::BTreeMap;

use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier};

/// A digest of what a worker's KV caches hold: of the multiset of (rank, tier, group, hash).
///
/// It does not depend on the order in which the blocks came, and changes with each event in time
/// proportional to the event. Two that saw the same effective events have the same value; two that
/// did not differ but for one chance in 2^64.
///
/// The value is the sum, modulo 2^64, of `mix(hash ^ mix(rank << 16 | tier << 8 | group))` over all
/// blocks, each as often as it is there; `mix` is the finalizer of splitmix64, and tiers count from
/// 1 (`G1`) to 4 (`G4`). It crosses the wire, so it stays what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvDigest {
    /// The sum of each rank's tiers, so that a tier can be cleared as a whole.
    parts: BTreeMap<(DpRank, Tier), u64>,
    total: u64,
}

impl KvDigest {
    /// Takes an effective event of a rank.
    pub fn apply(&mut self, rank: DpRank, event: &KvEvent) {
        match event {
            KvEvent::Stored {
                tier,
                group,
                blocks,
                ..
            } => self.add(rank, *tier, sum(rank, *tier, *group, blocks)),
            KvEvent::Removed {
                tier,
                group,
                blocks,
            } => {
                let sum = sum(rank, *tier, *group, blocks);
                self.add(rank, *tier, sum.wrapping_neg());
            }
            KvEvent::Cleared { tier } => {
                let part = self.parts.remove(&(rank, *tier)).unwrap_or(0);
                self.total = self.total.wrapping_sub(part);
            }
        }
    }

    /// The digest as a number; 0 if nothing is held.
    pub fn value(&self) -> u64 {
        self.total
    }

    fn add(&mut self, rank: DpRank, tier: Tier, sum: u64) {
        let part = self.parts.entry((rank, tier)).or_default();
        *part = part.wrapping_add(sum);
        self.total = self.total.wrapping_add(sum);
    }
}

fn sum(rank: DpRank, tier: Tier, group: CacheGroup, blocks: &[RoutingHash]) -> u64 {
    let tier = match tier {
        Tier::G1 => 1,
        Tier::G2 => 2,
        Tier::G3 => 3,
        Tier::G4 => 4,
    };
    let place = mix(u64::from(rank.0) << 16 | tier << 8 | u64::from(group.0));
    let elements = blocks.iter().map(|hash| mix(hash.0 ^ place));
    elements.fold(0, u64::wrapping_add)
}

/// The finalizer of splitmix64: each number to another one.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(tier: Tier, group: u8, hashes: &[u64]) -> KvEvent {
        KvEvent::Stored {
            tier,
            group: CacheGroup(group),
            parent: None,
            blocks: hashes.iter().copied().map(RoutingHash).collect(),
        }
    }

    fn removed(tier: Tier, group: u8, hashes: &[u64]) -> KvEvent {
        KvEvent::Removed {
            tier,
            group: CacheGroup(group),
            blocks: hashes.iter().copied().map(RoutingHash).collect(),
        }
    }

    fn digest(events: &[(u32, KvEvent)]) -> u64 {
        let mut digest = KvDigest::default();
        for (rank, event) in events {
            digest.apply(DpRank(*rank), event);
        }
        digest.value()
    }

    #[test]
    fn the_order_does_not_matter_but_every_other_thing_does() {
        let both = digest(&[(0, stored(Tier::G1, 0, &[1, 2]))]);
        let one_by_one = [
            (0, stored(Tier::G1, 0, &[2])),
            (0, stored(Tier::G1, 0, &[1])),
        ];
        assert_eq!(digest(&one_by_one), both);
        let others = [
            vec![],
            vec![(1, stored(Tier::G1, 0, &[1, 2]))],
            vec![(0, stored(Tier::G2, 0, &[1, 2]))],
            vec![(0, stored(Tier::G1, 1, &[1, 2]))],
            vec![(0, stored(Tier::G1, 0, &[1]))],
            vec![(0, stored(Tier::G1, 0, &[1, 2, 2]))],
        ];
        for other in others {
            assert_ne!(digest(&other), both, "{other:?}");
        }
    }

    #[test]
    fn what_goes_leaves_nothing() {
        let gone = [
            (0, stored(Tier::G1, 0, &[1, 2, 2])),
            (0, stored(Tier::G2, 1, &[3])),
            (0, removed(Tier::G1, 0, &[2, 1, 2])),
            (0, removed(Tier::G2, 1, &[3])),
        ];
        assert_eq!(digest(&gone), 0);
        let rest = digest(&[(1, stored(Tier::G1, 0, &[1]))]);
        let cleared = [
            (0, stored(Tier::G1, 0, &[1, 2])),
            (0, stored(Tier::G1, 1, &[1, 2])),
            (1, stored(Tier::G1, 0, &[1])),
            (0, KvEvent::Cleared { tier: Tier::G1 }),
        ];
        assert_eq!(digest(&cleared), rest);
    }

    #[test]
    fn the_value_is_pinned_because_it_crosses_the_wire() {
        let events = [
            (0, stored(Tier::G1, 0, &[1, u64::MAX])),
            (3, stored(Tier::G4, 7, &[0x075a_004c_1779_538c])),
        ];
        // Computed by the formula in another language.
        assert_eq!(digest(&events), 0xb8fe_f2e0_faad_b022);
    }
}
