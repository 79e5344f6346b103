use std::fmt;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::TokenId;

/// The seed of the field's public block hash.
const SEED: u64 = 1337;

/// One block's own, unchained hash: xxh3-64 over its token ids as little-endian `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub u64);

/// The chained hash of a block and everything before it.
///
/// Compatible bit for bit with what NVIDIA Dynamo's KV router computes, so that indexes, events
/// and tools of the field can be shared. Public and unkeyed, and its collisions can be constructed:
/// **only ever a hint of where to send a request**, never a name under which KV bytes are served.
/// That is [`ContentId`](crate::ContentId).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingHash(pub u64);

impl RoutingHash {
    /// The hash of a chain's first block: the block's own.
    pub const fn root(block: BlockHash) -> Self {
        Self(block.0)
    }

    /// The hash of the chain that continues this one by `block`.
    pub fn child(self, block: BlockHash) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[8..].copy_from_slice(&block.0.to_le_bytes());
        Self(xxh3_64_with_seed(&bytes, SEED))
    }
}

impl fmt::Display for RoutingHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What separates the block hashes of requests whose tokens are equal but whose KV is not: the
/// LoRA adapter and the cache salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoutingSeed(u64);

impl Default for RoutingSeed {
    /// Neither adapter nor salt.
    fn default() -> Self {
        Self(SEED)
    }
}

impl RoutingSeed {
    /// The seed for an adapter's name and a cache salt; an empty text is the same as none.
    pub fn new(lora: &str, salt: &str) -> Self {
        let part = |text: &str, seed| match text {
            "" => 0,
            text => xxh3_64_with_seed(text.as_bytes(), seed),
        };
        Self(SEED.wrapping_add(part(lora, 0)).wrapping_add(part(salt, 1)))
    }

    /// A full block's own hash. `features` are the routing hashes of the multimodal features that
    /// touch the block, in any order (see [`feature_routing_hash`]).
    pub fn block_hash(self, tokens: &[TokenId], features: &[u64]) -> BlockHash {
        // 512 bytes cover the usual blocks (16 to 128 tokens) without an allocation.
        let length = tokens.len() * 4 + features.len() * 8;
        let mut small = [0; 512];
        let mut large = Vec::new();
        let bytes = match small.get_mut(..length) {
            Some(bytes) => bytes,
            None => {
                large.resize(length, 0);
                &mut large
            }
        };
        let (token_bytes, feature_bytes) = bytes.split_at_mut(tokens.len() * 4);
        for (to, token) in token_bytes.chunks_exact_mut(4).zip(tokens) {
            to.copy_from_slice(&token.to_le_bytes());
        }
        if !features.is_empty() {
            let mut sorted = features.to_vec();
            sorted.sort_unstable();
            for (to, feature) in feature_bytes.chunks_exact_mut(8).zip(sorted) {
                to.copy_from_slice(&feature.to_le_bytes());
            }
        }
        BlockHash(xxh3_64_with_seed(bytes, self.0))
    }
}

/// The routing hash of a multimodal feature from the identifier that engines give it: the first
/// 16 digits of a 64-digit hexadecimal digest, else xxh3-64 of the text. `None` for an empty one.
pub fn feature_routing_hash(identifier: &str) -> Option<u64> {
    let is_digest = identifier.len() == 64 && identifier.bytes().all(|b| b.is_ascii_hexdigit());
    match identifier {
        "" => None,
        _ if is_digest => u64::from_str_radix(&identifier[..16], 16).ok(),
        _ => Some(xxh3_64(identifier.as_bytes())),
    }
}
