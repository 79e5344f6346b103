#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod block;
mod chain;
mod content;
mod ids;
mod kv_event;
mod routing;

pub use block::{BlockSize, CacheGroup, Tier, ZeroBlockSize};
pub use chain::{BlockChain, BlockIdentity, FeatureSpan};
pub use content::{ContentId, ContentKey, ContentNamespace};
pub use ids::{BlockId, DpRank, InvalidRequestId, RequestId, TokenId, WorkerId};
pub use kv_event::KvEvent;
pub use routing::{BlockHash, RoutingHash, RoutingSeed, feature_routing_hash};
