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
//!
//! ```
//! use std::time::Duration;
//!
//! use forebay_mux::events::{
//!     FollowerConfig, KvAnswer, KvFollower, KvLedger, KvSyncAnswer, KvUpdate, LedgerConfig,
//! };
//! use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier};
//!
//! let stored = |hash| KvEvent::Stored {
//!     tier: Tier::G1,
//!     group: CacheGroup(0),
//!     parent: None,
//!     blocks: vec![RoutingHash(hash)],
//! };
//! // The worker's engine has told of its cache, and the worker publishes under epoch 7.
//! let mut ledger = KvLedger::new(LedgerConfig::default(), 7);
//! ledger.replace(DpRank(0), vec![stored(1)]);
//!
//! // A follower starts with a snapshot.
//! let now = Duration::ZERO;
//! let mut follower = KvFollower::new(FollowerConfig::default(), 42);
//! let ask = follower.ask(now).expect("it knows nothing");
//! let sync = ledger.sync(ask.since);
//! let KvSyncAnswer::Snapshot(snapshot) = sync.answer else {
//!     panic!("nothing was known before");
//! };
//! let parts = snapshot.parts().collect();
//! follower.answer(now, KvAnswer::Snapshot { mark: sync.mark, parts });
//! let updates: Vec<_> = std::iter::from_fn(|| follower.next_update()).collect();
//! assert!(matches!(updates.first(), Some(KvUpdate::Reset { .. })));
//!
//! // A change is lost on the way. The publisher says where it is, and the follower asks.
//! ledger.change(DpRank(0), vec![stored(2)]);
//! follower.mark(now, ledger.mark());
//! let due = follower.next_timeout().expect("something is missing");
//! let ask = follower.ask(due).expect("it is time");
//! assert!(matches!(ledger.sync(ask.since).answer, KvSyncAnswer::Range(batches) if batches.len() == 1));
//! ```

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
