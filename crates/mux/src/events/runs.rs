//! Loose blocks as the chains that they came from.

use forebay_tokens::{CacheGroup, KvEvent, RoutingHash, Tier};
use rustc_hash::FxHashSet;

/// A block out of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    /// The block before it; the first field, so that siblings are neighbours in order.
    pub(super) parent: Option<RoutingHash>,
    pub(super) hash: RoutingHash,
    /// How often it is there, at least 1.
    pub(super) count: u32,
}

/// Stored events that say the same as the blocks, in runs as long as can be; parents go before
/// their children, as far as they are there and no chain is a circle. The result depends on the
/// set of blocks alone, not on their order.
pub(super) fn runs(place: (Tier, CacheGroup), mut blocks: Vec<Block>) -> Vec<KvEvent> {
    blocks.sort_unstable();
    let stored = |parent, blocks| KvEvent::Stored {
        tier: place.0,
        group: place.1,
        parent,
        blocks,
    };
    let mut walk = Walk {
        is_done: vec![false; blocks.len()],
        blocks: &blocks,
    };
    let mut events = Vec::new();
    let known: FxHashSet<_> = blocks.iter().map(|block| block.hash).collect();
    let is_root = |block: &Block| block.parent.is_none_or(|parent| !known.contains(&parent));
    // What the roots do not lead to are circles, which begin anywhere.
    let roots = (0..blocks.len()).filter(|at| is_root(&blocks[*at]));
    for start in roots.chain(0..blocks.len()) {
        let mut starts = vec![start];
        while let Some(start) = starts.pop() {
            let run = walk.run(start, &mut starts);
            if !run.is_empty() {
                events.push(stored(blocks[start].parent, run));
            }
        }
    }
    for block in &blocks {
        let again = 1..block.count;
        events.extend(again.map(|_| stored(block.parent, vec![block.hash])));
    }
    events
}

struct Walk<'a> {
    /// In order.
    blocks: &'a [Block],
    is_done: Vec<bool>,
}

impl Walk<'_> {
    /// Follows first children from `start`, and leaves their siblings in `starts`.
    fn run(&mut self, start: usize, starts: &mut Vec<usize>) -> Vec<RoutingHash> {
        let mut run = Vec::new();
        let mut at = Some(start);
        while let Some(here) = at.filter(|here| !self.is_done[*here]) {
            self.is_done[here] = true;
            let hash = self.blocks[here].hash;
            run.push(hash);
            let first = self.blocks.partition_point(|b| b.parent < Some(hash));
            let children = self.blocks[first..].iter();
            let children = children.take_while(|b| b.parent == Some(hash)).count();
            starts.extend((first + 1)..(first + children.max(1)));
            at = (children > 0).then_some(first);
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(blocks: &[(Option<u64>, u64, u32)]) -> Vec<(Option<u64>, Vec<u64>)> {
        let block = |(parent, hash, count): &(Option<u64>, u64, u32)| Block {
            parent: parent.map(RoutingHash),
            hash: RoutingHash(*hash),
            count: *count,
        };
        let blocks = blocks.iter().map(block).collect();
        let plain = |event| match event {
            KvEvent::Stored { parent, blocks, .. } => (
                parent.map(|parent: RoutingHash| parent.0),
                blocks.into_iter().map(|hash| hash.0).collect(),
            ),
            event => panic!("{event:?}"),
        };
        let events = runs((Tier::G1, CacheGroup(0)), blocks);
        events.into_iter().map(plain).collect()
    }

    #[test]
    fn chains_are_found_again() {
        let tree = [
            (Some(2), 3, 1),
            (Some(1), 2, 1),
            (None, 1, 1),
            (Some(2), 9, 1),
            (Some(9), 4, 1),
            (Some(77), 8, 1),
        ];
        let expected = [
            (None, vec![1, 2, 3]),
            (Some(2), vec![9, 4]),
            (Some(77), vec![8]),
        ];
        assert_eq!(events(&tree), expected);
    }

    #[test]
    fn what_is_there_twice_is_said_twice() {
        let expected = [(None, vec![1, 2]), (Some(1), vec![2]), (Some(1), vec![2])];
        assert_eq!(events(&[(None, 1, 1), (Some(1), 2, 3)]), expected);
    }

    #[test]
    fn circles_end() {
        assert_eq!(events(&[(Some(5), 5, 1)]), [(Some(5), vec![5])]);
        let circle = [(Some(3), 1, 1), (Some(1), 2, 1), (Some(2), 3, 1)];
        assert_eq!(events(&circle), [(Some(1), vec![2, 3, 1])]);
    }
}
