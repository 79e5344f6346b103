use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use forebay_protocols::worker::{Artefact, artefact::Content};

use super::frames::encode;

/// The name of an [`Artefact`]: the BLAKE3, 32 bytes, of its message as it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtefactDigest(pub [u8; 32]);

impl ArtefactDigest {
    /// The digest of an artefact's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ArtefactDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ArtefactDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtefactDigest({self})")
    }
}

/// What a worker gives to who asks for it by its digest: its model's tokenizer and template.
#[derive(Clone, Default)]
pub struct Artefacts(HashMap<ArtefactDigest, Bytes>);

impl Artefacts {
    /// None at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an artefact, and gives the digest under which it is asked for.
    pub fn insert(&mut self, content: Content) -> ArtefactDigest {
        let bytes = encode(&Artefact {
            content: Some(content),
        });
        let digest = ArtefactDigest::of(&bytes);
        self.0.insert(digest, bytes);
        digest
    }

    /// The bytes of an artefact.
    pub(super) fn get(&self, digest: &ArtefactDigest) -> Option<&Bytes> {
        self.0.get(digest)
    }
}

impl fmt::Debug for Artefacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.0.iter().map(|(digest, bytes)| (digest, bytes.len()));
        f.debug_map().entries(sizes).finish()
    }
}
