use forebay_tokens::{BlockIdentity, ContentId};
use rustc_hash::FxHashMap;

/// The full blocks that running sequences are about to compute: known by content, not in the cache
/// yet. Counted, since two sequences may come to compute the same one.
#[derive(Debug, Default)]
pub(crate) struct InProgress {
    counts: FxHashMap<ContentId, u32>,
}

impl InProgress {
    pub(crate) fn add(&mut self, blocks: &[BlockIdentity]) {
        for block in blocks {
            *self.counts.entry(block.content).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, blocks: &[BlockIdentity]) {
        for block in blocks {
            let count = self
                .counts
                .get_mut(&block.content)
                .expect("what is removed was added");
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&block.content);
            }
        }
    }

    pub(crate) fn contains(&self, content: &ContentId) -> bool {
        self.counts.contains_key(content)
    }
}
