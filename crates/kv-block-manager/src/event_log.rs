use forebay_tokens::{CacheGroup, KvEvent, RoutingHash, Tier};

/// The events not yet taken, neighbours of one kind folded into one.
#[derive(Debug)]
pub(crate) struct EventLog {
    tier: Tier,
    events: Vec<KvEvent>,
    hashes: usize,
}

impl EventLog {
    pub(crate) fn new(tier: Tier) -> Self {
        Self {
            tier,
            events: Vec::new(),
            hashes: 0,
        }
    }

    pub(crate) fn stored(&mut self, to: CacheGroup, after: Option<RoutingHash>, hash: RoutingHash) {
        self.hashes += 1;
        if let Some(KvEvent::Stored { group, blocks, .. }) = self.events.last_mut()
            && *group == to
            && after.is_some()
            && blocks.last().copied() == after
        {
            blocks.push(hash);
            return;
        }
        self.events.push(KvEvent::Stored {
            tier: self.tier,
            group: to,
            parent: after,
            blocks: vec![hash],
        });
    }

    pub(crate) fn removed(&mut self, from: CacheGroup, hash: RoutingHash) {
        self.hashes += 1;
        if let Some(KvEvent::Removed { group, blocks, .. }) = self.events.last_mut()
            && *group == from
        {
            blocks.push(hash);
            return;
        }
        self.events.push(KvEvent::Removed {
            tier: self.tier,
            group: from,
            blocks: vec![hash],
        });
    }

    /// Forgets what happened before: whatever it was, nothing of it is left now.
    pub(crate) fn cleared(&mut self) {
        self.events.clear();
        self.events.push(KvEvent::Cleared { tier: self.tier });
        self.hashes = 0;
    }

    /// How many hashes the events name.
    pub(crate) fn hashes(&self) -> usize {
        self.hashes
    }

    pub(crate) fn take(&mut self) -> Vec<KvEvent> {
        self.hashes = 0;
        std::mem::take(&mut self.events)
    }
}
