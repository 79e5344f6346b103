use std::ops::{Add, AddAssign, Range};

/// What one forward pass of an engine computes: the inputs of a [`PerfModel`](crate::PerfModel).
///
/// Iterations add up: the sum of two is the iteration that does the work of both at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Iteration {
    /// Prompt tokens to compute.
    pub prefill_tokens: u64,
    /// For each of them the tokens it attends to, itself included, summed: the work of attention.
    pub prefill_context_tokens: u64,
    /// Sequences that get one more token.
    pub decode_sequences: u64,
    /// The tokens they attend to, summed over the sequences.
    pub decode_context_tokens: u64,
}

impl Iteration {
    /// A chunk of one prompt: the tokens at these positions, all before them in the cache.
    pub const fn prefill(positions: Range<u64>) -> Self {
        let before = positions.start;
        let tokens = positions.end.saturating_sub(before);
        // The token at position p attends to p + 1 tokens.
        let triangle = (tokens as u128 * (tokens as u128 + 1)) / 2;
        let context = before as u128 * tokens as u128 + triangle;
        Self {
            prefill_tokens: tokens,
            prefill_context_tokens: if context > u64::MAX as u128 {
                u64::MAX
            } else {
                context as u64
            },
            decode_sequences: 0,
            decode_context_tokens: 0,
        }
    }

    /// One more token for each of `sequences`, which have `context_tokens` together.
    pub const fn decode(sequences: u64, context_tokens: u64) -> Self {
        Self {
            prefill_tokens: 0,
            prefill_context_tokens: 0,
            decode_sequences: sequences,
            decode_context_tokens: context_tokens,
        }
    }

    /// Whether there is nothing to compute.
    pub const fn is_empty(&self) -> bool {
        self.prefill_tokens == 0 && self.decode_sequences == 0
    }
}

impl AddAssign for Iteration {
    fn add_assign(&mut self, other: Self) {
        let add = |to: &mut u64, more| *to = to.saturating_add(more);
        add(&mut self.prefill_tokens, other.prefill_tokens);
        add(
            &mut self.prefill_context_tokens,
            other.prefill_context_tokens,
        );
        add(&mut self.decode_sequences, other.decode_sequences);
        add(&mut self.decode_context_tokens, other.decode_context_tokens);
    }
}

impl Add for Iteration {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefill_is_the_sum_of_its_chunks() {
        // Positions 2, 3 and 4 attend to 3, 4 and 5 tokens.
        assert_eq!(Iteration::prefill(2..5).prefill_context_tokens, 12);
        let chunks =
            Iteration::prefill(0..7) + Iteration::prefill(7..8) + Iteration::prefill(8..20);
        assert_eq!(chunks, Iteration::prefill(0..20));
    }

    #[test]
    fn what_is_too_large_saturates() {
        let huge = Iteration::prefill(0..u64::MAX);
        assert_eq!(huge.prefill_context_tokens, u64::MAX);
        assert_eq!(huge + huge, huge);
        assert!(Iteration::prefill(5..5).is_empty());
    }
}
