//! KV blocks that leave an engine and come into one.

use forebay_kv_block_manager::RegisteredBlock;
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{BlockIdentity, TokenId};

use super::{EngineCore, GROUP};

/// One KV block outside of an engine's memory.
#[derive(Clone, PartialEq, Eq)]
pub struct KvBlock {
    /// What it holds.
    pub identity: BlockIdentity,
    /// Its bytes, as [`KvLayout`](crate::KvLayout) says.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for KvBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { identity, bytes } = self;
        write!(f, "KvBlock({}, {} bytes)", identity.content, bytes.len())
    }
}

impl EngineCore {
    /// Copies of the cached blocks of the longest cached prefix of `tokens`; full blocks only,
    /// perhaps none. `cache_salt` is that of the requests that may share them.
    pub fn export_prefix(&self, tokens: &[TokenId], cache_salt: &str) -> Vec<KvBlock> {
        let chain = self.chain(tokens, cache_salt);
        let held: Vec<RegisteredBlock> = chain
            .identities()
            .iter()
            .map_while(|block| self.pool().get(GROUP, &block.content))
            .collect();
        held.iter()
            .map(|block| KvBlock {
                identity: block.identity(),
                bytes: self
                    .runner
                    .memory()
                    .export(block.id())
                    .expect("the pool has as many blocks as the memory"),
            })
            .collect()
    }

    /// Puts the first blocks of `tokens` into the cache, as an engine of the same content key and
    /// [fingerprint](crate::Model::kv_fingerprint) exported them. Gives how many were not there
    /// yet.
    ///
    /// Every block must have the identity that its tokens have here, so blocks of another prompt,
    /// tenant, model or deployment are refused. That the bytes are what was exported is the
    /// transport's to see to: no identity says it.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` for more blocks than tokens fill, for an identity that is not the tokens'
    /// (reason `kv_content_mismatch`) or for bytes that are not a block; `CapacityExhausted` if
    /// running requests leave too few blocks. Nothing changed then.
    pub fn import_prefix(
        &mut self,
        tokens: &[TokenId],
        cache_salt: &str,
        blocks: &[KvBlock],
    ) -> Result<usize, Error> {
        let chain = self.chain(tokens, cache_salt);
        let Some(identities) = chain.identities().get(..blocks.len()) else {
            let message = format!(
                "{} tokens do not fill {} blocks",
                tokens.len(),
                blocks.len()
            );
            return Err(Error::invalid("blocks", message));
        };
        let bytes_per_block = self.runner.memory().layout().bytes_per_block();
        for (i, (block, identity)) in blocks.iter().zip(identities).enumerate() {
            if block.identity != *identity {
                let message = format!("block {i} is not of these tokens, salt, model and key");
                let class = ErrorClass::InvalidRequest;
                return Err(Error::new(class, "kv_content_mismatch", message).with_param("blocks"));
            }
            if block.bytes.len() != bytes_per_block {
                let bytes = block.bytes.len();
                let message = format!("block {i} has {bytes} bytes, not {bytes_per_block}");
                return Err(Error::invalid("blocks", message));
            }
        }

        // Held, so that no block of the prefix gives way to the next.
        let mut held: Vec<RegisteredBlock> = identities
            .iter()
            .map_while(|block| self.pool().get(GROUP, &block.content))
            .collect();
        let known = held.len();
        let fresh = self.pool().allocate(GROUP, blocks.len() - known);
        let fresh = fresh.map_err(|error| {
            let message = "too few KV blocks are free at the moment";
            Error::new(ErrorClass::CapacityExhausted, "kv_cache_full", message)
                .with_diagnostic(error.to_string())
        })?;
        for (i, block) in (known..).zip(fresh) {
            let written = self
                .runner
                .memory_mut()
                .import(block.id(), &blocks[i].bytes);
            written.expect("the pool's blocks are the memory's, and the length was checked");
            held.push(block.complete(&identities[..=i]).register());
        }
        Ok(blocks.len() - known)
    }
}
