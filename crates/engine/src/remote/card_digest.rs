use std::fmt;

use super::card::WorkerCard;

/// What two workers must have in common so that an answer, or KV, can go from one to the other.
///
/// A pool of workers is named by its model's name and this. It covers what changes an answer or a
/// block's hash: weights, tokenizer, template, context length, block size and cache groups, and the
/// rule of routing hashes. What differs from worker to worker of a pool (role, capacity, adapters,
/// place) and what only presents the model (names, sampling defaults) is no part of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardDigest(pub [u8; 32]);

/// Names the form that is hashed. Another form needs another text: digests never change by
/// themselves, or an upgrade of Forebay would look like one of every model.
const CONTEXT: &str = "forebay worker card digest v1";

/// The kind of the one cache group that there is: every layer looks at the whole sequence.
const FULL_ATTENTION: &str = "full";

impl CardDigest {
    /// BLAKE3 with the derived key of [`CONTEXT`], over, in this order:
    ///
    /// 1. the weights' name: text;
    /// 2. tokenizer and template: each a byte 1 and its digest, or a byte 0;
    /// 3. the context length: u32;
    /// 4. the number of cache groups: u32, and of each its kind: text, and its block size: u32;
    /// 5. the hash rule: text;
    ///
    /// where a u32 is little-endian, and a text is its length in bytes as a u32 and its UTF-8.
    pub(super) fn of(card: &WorkerCard) -> Self {
        let mut form = Form(blake3::Hasher::new_derive_key(CONTEXT));
        form.text(&card.weights);
        for artefact in [card.tokenizer, card.template] {
            form.0.update(&[u8::from(artefact.is_some())]);
            form.0
                .update(artefact.as_ref().map_or(&[], |digest| &digest.0));
        }
        form.number(card.engine.context_length as usize);
        form.number(1);
        form.text(FULL_ATTENTION);
        form.number(card.engine.block_size.get());
        form.text(&card.hash_rule);
        Self(*form.0.finalize().as_bytes())
    }
}

struct Form(blake3::Hasher);

impl Form {
    fn number(&mut self, number: usize) {
        let number = u32::try_from(number).expect("a card's lengths and sizes are u32");
        self.0.update(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }
}

impl fmt::Display for CardDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for CardDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CardDigest({self})")
    }
}
