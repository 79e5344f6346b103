use crate::{BlockHash, BlockSize, ContentId, ContentNamespace, RoutingHash, RoutingSeed, TokenId};

/// Both identities of one full block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockIdentity {
    /// The name under which the block's bytes are shared.
    pub content: ContentId,
    /// The hint under which routers look for it.
    pub routing: RoutingHash,
}

/// A multimodal feature (an image, a clip) that stands at placeholder tokens of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureSpan {
    /// The position of its first placeholder token in the sequence, from 0.
    pub start: usize,
    /// How many placeholder tokens it has; at least 1.
    pub tokens: usize,
    /// Its routing hash (see [`feature_routing_hash`](crate::feature_routing_hash)).
    pub routing: u64,
    /// A cryptographic digest of its content.
    pub digest: [u8; 32],
}

/// The identities of a growing sequence's full blocks, kept up as tokens come.
#[derive(Clone, Debug)]
pub struct BlockChain {
    namespace: ContentNamespace,
    seed: RoutingSeed,
    block_size: BlockSize,
    features: Vec<FeatureSpan>,
    identities: Vec<BlockIdentity>,
    tail: Vec<TokenId>,
}

impl BlockChain {
    /// An empty sequence.
    pub fn new(namespace: ContentNamespace, seed: RoutingSeed, block_size: BlockSize) -> Self {
        Self {
            namespace,
            seed,
            block_size,
            features: Vec::new(),
            identities: Vec::new(),
            tail: Vec::with_capacity(block_size.get()),
        }
    }

    /// Says which multimodal features the sequence will hold, before its first token; a block's
    /// identities cover every feature that touches it.
    pub fn with_features(mut self, mut features: Vec<FeatureSpan>) -> Self {
        features.sort_by_key(|feature| feature.start);
        self.features = features;
        self
    }

    /// Appends tokens; amortised one hash of each kind a block.
    pub fn extend(&mut self, mut tokens: &[TokenId]) {
        let size = self.block_size.get();
        if !self.tail.is_empty() {
            let (head, rest) = tokens.split_at(tokens.len().min(size - self.tail.len()));
            self.tail.extend_from_slice(head);
            tokens = rest;
            if self.tail.len() == size {
                let block = std::mem::take(&mut self.tail);
                self.complete(&block);
                self.tail = block;
                self.tail.clear();
            }
        }
        let blocks = tokens.chunks_exact(size);
        self.tail.extend_from_slice(blocks.remainder());
        self.identities.reserve(blocks.len());
        blocks.for_each(|block| self.complete(block));
    }

    /// Appends one token.
    pub fn push(&mut self, token: TokenId) {
        self.extend(&[token]);
    }

    fn complete(&mut self, block: &[TokenId]) {
        let parent = self.identities.last();
        let start = self.identities.len() * self.block_size.get();
        let end = start + block.len();
        let touching: Vec<&FeatureSpan> = self
            .features
            .iter()
            .filter(|feature| feature.start < end && feature.start + feature.tokens > start)
            .collect();
        let routing: Vec<u64> = touching.iter().map(|feature| feature.routing).collect();

        let hash = self.seed.block_hash(block, &routing);
        let identity = BlockIdentity {
            content: self.namespace.content_id(
                parent.map(|parent| parent.content),
                block,
                touching.iter().map(|feature| feature.digest),
            ),
            routing: parent.map_or(RoutingHash::root(hash), |parent| parent.routing.child(hash)),
        };
        self.identities.push(identity);
    }

    /// The identities of the full blocks, first to last.
    pub fn identities(&self) -> &[BlockIdentity] {
        &self.identities
    }

    /// The tokens after the last full block; fewer than a block.
    pub fn tail(&self) -> &[TokenId] {
        &self.tail
    }

    /// How many tokens the sequence has.
    pub fn len(&self) -> usize {
        self.identities.len() * self.block_size.get() + self.tail.len()
    }

    /// Whether the sequence has no token yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens a block.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// The own hash that a block of these tokens, without features, has in this sequence.
    pub fn block_hash_of(&self, tokens: &[TokenId]) -> BlockHash {
        self.seed.block_hash(tokens, &[])
    }
}
