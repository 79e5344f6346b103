//! What a worker's KV caches hold, told to many over a plane that loses messages.
//!
//! The worker keeps a [`KvLedger`]: the multiset of blocks that its engine has announced, numbered
//! batches of changes, and a digest of the whole. Each consumer keeps a [`KvFollower`] for each
//! worker, which notices whatever it misses - by a gap, a new epoch or a digest that differs - and
//! has it repaired: from the ledger's ring of recent batches, else by a snapshot.
//!
//! The digest is of what the publisher has applied, and a follower computes it from the events
//! themselves. So it needs no memory for the blocks, and what a consumer retains of them is its own
//! affair: an index that drops blocks for want of room leads to no repair.

mod batch;
mod cut;
mod digest;
mod follower;
mod holdings;
mod ledger;
mod marks;
mod pacing;
mod runs;
mod snapshot;

pub use batch::{KvBatch, KvMark, KvPosition};
pub use digest::KvDigest;
pub use follower::{FollowerConfig, KvAnswer, KvAsk, KvFollower, KvRepair, KvState, KvUpdate};
pub use ledger::{KvLedger, KvSync, KvSyncAnswer, LedgerConfig};
pub use marks::KvMarks;
pub use snapshot::KvSnapshot;
