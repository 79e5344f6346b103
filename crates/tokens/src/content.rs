use std::fmt;

use crate::TokenId;

/// A deployment's secret, under which every [`ContentId`] is made.
///
/// Drawn at random when one process stands alone, from configuration in a cluster. It is not
/// printable and not readable back: no log can hold it.
#[derive(Clone)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// Takes 32 secret bytes of full entropy.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(secret)")
    }
}

/// Who may share KV with whom: the deployment's key, the model and layout fingerprint, and the
/// tenant's salt, folded into one key from which ids are made.
///
/// Two namespaces that differ in any of the three have no [`ContentId`] in common.
#[derive(Clone, Copy)]
pub struct ContentNamespace([u8; 32]);

impl ContentNamespace {
    /// Folds the three. `fingerprint` names all that decides a block's bytes beside its tokens
    /// (weights, adapter, KV layout, arithmetic); `tenant_salt` separates who must not share.
    pub fn new(key: &ContentKey, fingerprint: &[u8], tenant_salt: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(b"forebay content namespace 1");
        for part in [fingerprint, tenant_salt] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The id of a full block: its tokens, the content digests of the multimodal features that
    /// touch it in order of position, and everything before it through `parent`.
    pub fn content_id(
        &self,
        parent: Option<ContentId>,
        tokens: &[TokenId],
        features: impl ExactSizeIterator<Item = [u8; 32]>,
    ) -> ContentId {
        // Every part has a length or a fixed size, so no two inputs give the same bytes. A first
        // block's parent is all zeros: that no chain reaches, unless 128 bits of a keyed hash do.
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&parent.map_or([0; 16], |parent| parent.0));
        hasher.update(&(tokens.len() as u32).to_le_bytes());
        let mut bytes = [0; 256];
        for part in tokens.chunks(bytes.len() / 4) {
            let bytes = &mut bytes[..part.len() * 4];
            for (to, token) in bytes.chunks_exact_mut(4).zip(part) {
                to.copy_from_slice(&token.to_le_bytes());
            }
            hasher.update(bytes);
        }
        hasher.update(&(features.len() as u32).to_le_bytes());
        for digest in features {
            hasher.update(&digest);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ContentId(id)
    }
}

impl fmt::Debug for ContentNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentNamespace(secret)")
    }
}

/// The name of a KV block's content: 128 bits of keyed BLAKE3 over the block and all before it.
///
/// The only identity under which KV bytes are shared or served, in every pool and tier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; 16]);

impl ContentId {
    /// An id as it was stored or received.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes, to store or to send.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}
