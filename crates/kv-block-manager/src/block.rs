use std::fmt;
use std::sync::{Arc, Weak};

use forebay_tokens::{BlockId, BlockIdentity, CacheGroup, ContentId, RoutingHash};

use crate::pool::Shared;

/// One count in the pool's books; dropping it takes the count back.
pub(crate) struct Hold {
    pool: Arc<Shared>,
    group: CacheGroup,
    id: BlockId,
}

impl Hold {
    /// Stands for a count that the pool has just made.
    pub(crate) fn new(pool: Arc<Shared>, group: CacheGroup, id: BlockId) -> Self {
        Self { pool, group, id }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.release(self.group, self.id);
    }
}

/// A block of its owner's alone, to be filled.
///
/// Dropping it frees the block.
pub struct MutableBlock {
    hold: Hold,
}

impl MutableBlock {
    pub(crate) fn new(hold: Hold) -> Self {
        Self { hold }
    }

    /// The physical block.
    pub fn id(&self) -> BlockId {
        self.hold.id
    }

    /// The cache group it belongs to.
    pub fn group(&self) -> CacheGroup {
        self.hold.group
    }

    /// States that every token of the block has its KV in place. `chain` is the sequence's chain
    /// up to and with this block.
    ///
    /// # Panics
    ///
    /// If `chain` is empty.
    pub fn complete(self, chain: &[BlockIdentity]) -> CompleteBlock {
        let (identity, before) = chain
            .split_last()
            .expect("the chain up to and with a block has that block");
        CompleteBlock {
            hold: self.hold,
            identity: *identity,
            parent: before.last().map(|parent| parent.routing),
            depth: u32::try_from(before.len()).unwrap_or(u32::MAX),
        }
    }
}

/// A full block that has its name but is known to nobody else yet.
///
/// Dropping it frees the block.
pub struct CompleteBlock {
    hold: Hold,
    identity: BlockIdentity,
    parent: Option<RoutingHash>,
    depth: u32,
}

impl CompleteBlock {
    /// The physical block.
    pub fn id(&self) -> BlockId {
        self.hold.id
    }

    /// What the block holds.
    pub fn identity(&self) -> BlockIdentity {
        self.identity
    }

    /// Makes the content available to prefix matches. If it is available already, this block is
    /// freed and the known one returned: **the id may differ**, and block tables must follow it.
    pub fn register(mut self) -> RegisteredBlock {
        let (group, id) = (self.hold.group, self.hold.id);
        // The hold keeps standing for one count, be it of another block.
        self.hold.id = self
            .hold
            .pool
            .register(group, id, self.identity, self.parent, self.depth);
        RegisteredBlock {
            hold: self.hold,
            identity: self.identity,
        }
    }
}

/// A full block in use, whose content any number of sequences share; never written to.
///
/// Dropping the last one leaves the content cached, until the block is needed for something else.
pub struct RegisteredBlock {
    hold: Hold,
    identity: BlockIdentity,
}

impl RegisteredBlock {
    pub(crate) fn new(hold: Hold, identity: BlockIdentity) -> Self {
        Self { hold, identity }
    }

    /// The physical block.
    pub fn id(&self) -> BlockId {
        self.hold.id
    }

    /// The cache group it belongs to.
    pub fn group(&self) -> CacheGroup {
        self.hold.group
    }

    /// What the block holds.
    pub fn identity(&self) -> BlockIdentity {
        self.identity
    }

    /// A handle that does not keep the content cached.
    pub fn downgrade(&self) -> WeakBlock {
        WeakBlock {
            pool: Arc::downgrade(&self.hold.pool),
            group: self.hold.group,
            content: self.identity.content,
        }
    }
}

impl Clone for RegisteredBlock {
    fn clone(&self) -> Self {
        let Hold { pool, group, id } = &self.hold;
        pool.share(*group, *id);
        Self::new(Hold::new(pool.clone(), *group, *id), self.identity)
    }
}

/// A content that was registered once, and may still be.
#[derive(Clone)]
pub struct WeakBlock {
    pool: Weak<Shared>,
    group: CacheGroup,
    content: ContentId,
}

impl WeakBlock {
    /// The content it stands for.
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// The block that holds the content now, in use or cached. It is the content that counts: if
    /// it was evicted and registered anew, the physical block is another one.
    pub fn upgrade(&self) -> Option<RegisteredBlock> {
        Shared::get(&self.pool.upgrade()?, self.group, &self.content)
    }
}

impl fmt::Debug for MutableBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MutableBlock({}/{})", self.group(), self.id())
    }
}

impl fmt::Debug for CompleteBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hold { group, id, .. } = &self.hold;
        write!(f, "CompleteBlock({group}/{id}: {})", self.identity.content)
    }
}

impl fmt::Debug for RegisteredBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hold { group, id, .. } = &self.hold;
        write!(
            f,
            "RegisteredBlock({group}/{id}: {})",
            self.identity.content
        )
    }
}

impl fmt::Debug for WeakBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeakBlock({}: {})", self.group, self.content)
    }
}
