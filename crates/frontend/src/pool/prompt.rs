use std::sync::Arc;

use forebay_tokens::{BlockSize, RoutingHash, RoutingSeed, TokenId};

/// A prompt, as far as its worker's choice depends on it.
#[derive(Clone, Debug)]
pub(crate) struct RoutedPrompt {
    /// The hashes of its full blocks; empty where nobody asks for them.
    pub(crate) chain: Arc<[RoutingHash]>,
    pub(crate) tokens: usize,
}

impl RoutedPrompt {
    /// A prompt whose prefixes do not matter.
    pub(crate) fn of_length(tokens: usize) -> Self {
        Self {
            chain: [].into(),
            tokens,
        }
    }

    /// A prompt with the hashes of its full blocks.
    pub(crate) fn hashed(tokens: &[TokenId], block_size: BlockSize, seed: RoutingSeed) -> Self {
        let mut parent: Option<RoutingHash> = None;
        let blocks = tokens.chunks_exact(block_size.get());
        let chain = blocks.map(|block| {
            let hash = seed.block_hash(block, &[]);
            let chained = match parent {
                Some(parent) => parent.child(hash),
                None => RoutingHash::root(hash),
            };
            *parent.insert(chained)
        });
        Self {
            chain: chain.collect(),
            tokens: tokens.len(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_tokens::{BlockChain, ContentKey, ContentNamespace};

    use super::*;

    #[test]
    fn hashes_are_those_that_workers_announce() {
        let block_size = BlockSize::new(4).unwrap();
        let tokens: Vec<TokenId> = (0..19).collect();
        let seed = RoutingSeed::new("", "salt");
        let namespace = ContentNamespace::new(&ContentKey::new([7; 32]), b"", b"salt");
        let mut announced = BlockChain::new(namespace, seed, block_size);
        announced.extend(&tokens);
        let announced: Vec<_> = (announced.identities().iter())
            .map(|identity| identity.routing)
            .collect();
        let prompt = RoutedPrompt::hashed(&tokens, block_size, seed);
        assert_eq!(&*prompt.chain, announced);
        assert_eq!((prompt.chain.len(), prompt.tokens), (4, 19));
    }
}
