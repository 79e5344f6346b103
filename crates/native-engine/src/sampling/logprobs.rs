//! Log probabilities under the model's own distribution.

use forebay_protocols::worker::{TokenLogprobs, TopLogprob};
use forebay_tokens::TokenId;

use super::weights::{ONE, total_weight};

/// A row of raw logits as a distribution.
pub(super) struct Distribution {
    greatest: f32,
    /// The logarithm of the sum of `e^(logit - greatest)`.
    log_total: f64,
    /// The most probable tokens and their logits, best first.
    top: Vec<(TokenId, f32)>,
}

impl Distribution {
    /// Of finite logits, the greatest of which is `greatest`, with the `top` most probable tokens.
    pub(super) fn new(logits: &[f32], greatest: f32, top: usize) -> Self {
        let total = total_weight(logits, greatest) as f64 / ONE as f64;
        Self {
            greatest,
            log_total: libm::log(total),
            top: best(logits, top),
        }
    }

    /// What is reported for a token that has this raw logit.
    pub(super) fn report(&self, logit: f32) -> TokenLogprobs {
        let top = self.top.iter().map(|(token_id, logit)| TopLogprob {
            token_id: *token_id,
            logprob: self.logprob(*logit),
        });
        TokenLogprobs {
            logprob: self.logprob(logit),
            top: top.collect(),
        }
    }

    fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.greatest) - self.log_total) as f32
    }
}

/// The `n` greatest logits, best first; of equal ones the lower id first.
fn best(logits: &[f32], n: usize) -> Vec<(TokenId, f32)> {
    let mut best: Vec<(TokenId, f32)> = Vec::with_capacity(n + 1);
    for (token, logit) in (0..).zip(logits) {
        if best.len() == n && best.last().is_none_or(|(_, last)| logit <= last) {
            continue;
        }
        let at = best.partition_point(|(_, other)| other >= logit);
        best.insert(at, (token, *logit));
        best.truncate(n);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_in_order_and_ties_by_id() {
        let logits = [1.0, 3.0, 2.0, 3.0, -1.0, 2.0];
        assert_eq!(best(&logits, 4), [(1, 3.0), (3, 3.0), (2, 2.0), (5, 2.0)]);
        assert_eq!(best(&logits, 0), []);
        assert_eq!(best(&logits, 9).len(), 6);
        assert_eq!(best(&logits, 9).last(), Some(&(4, -1.0)));
    }

    #[test]
    fn probabilities_add_up_to_one() {
        let logits: Vec<f32> = (0..1_000).map(|i| ((i * 37) % 101) as f32 / 9.0).collect();
        let greatest = logits.iter().fold(f32::MIN, |a, b| a.max(*b));
        let distribution = Distribution::new(&logits, greatest, 1);
        let total: f64 = logits
            .iter()
            .map(|logit| f64::from(distribution.report(*logit).logprob).exp())
            .sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");

        let alone = Distribution::new(&[7.5], 7.5, 3).report(7.5);
        assert_eq!((alone.logprob, alone.top.len()), (0.0, 1));
    }
}
