//! Random numbers as a function of where they are used.

/// The 64 random bits that decide one token.
///
/// The first eight bytes, little-endian, of BLAKE3 over the text `forebay draw 1`, the seed (u64),
/// the choice index (u32) and the position (u64, counted in tokens of the choice), all
/// little-endian. A counter function: no state is carried from token to token, so a choice that
/// moves to another worker after any of its tokens goes on with the same numbers.
pub(super) fn random_bits(seed: u64, choice_index: u32, position: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"forebay draw 1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&choice_index.to_le_bytes());
    hasher.update(&position.to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A number below `bound`, uniform to within `bound / 2^64`.
pub(super) fn below(random_bits: u64, bound: u64) -> u64 {
    let product = u128::from(random_bits) * u128::from(bound);
    u64::try_from(product >> 64).expect("a product of two u64 is below 2^128")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These numbers are what resumed streams rest on: they never change.
    #[test]
    fn draws_are_what_they_always_were() {
        assert_eq!(random_bits(0, 0, 0), GOLDEN[0]);
        assert_eq!(random_bits(42, 0, 7), GOLDEN[1]);
        assert_eq!(random_bits(u64::MAX, 3, 8191), GOLDEN[2]);
    }

    const GOLDEN: [u64; 3] = [
        14_835_900_269_370_731_675,
        15_171_996_589_873_633_994,
        16_169_885_664_672_573_046,
    ];

    #[test]
    fn numbers_below_a_bound_reach_all_of_it() {
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(1 << 63, 10), 5);
        assert_eq!(below(u64::MAX, 1), 0);
    }
}
