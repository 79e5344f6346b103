use forebay_protocols::SamplingRules;
use forebay_protocols::worker::TokenLogprobs;
use forebay_tokens::TokenId;

use super::draw::{below, random_bits};
use super::greatest;
use super::history::TokenHistory;
use super::logprobs::Distribution;
use super::truncation::Truncation;
use super::weights::weigh;

/// Chooses tokens. It keeps buffers between calls, but nothing that changes an answer.
#[derive(Debug)]
pub(crate) struct Sampler {
    weights: Vec<u64>,
    truncation: Truncation,
}

/// What decides one token beside the logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenRules<'a> {
    pub(crate) params: &'a SamplingRules,
    /// Of the tokens before this one; needed if the parameters have penalties.
    pub(crate) history: &'a TokenHistory,
    pub(crate) choice_index: u32,
    /// How many tokens the choice has.
    pub(crate) position: usize,
    /// Tokens that may not be chosen now; in the vocabulary.
    pub(crate) banned: &'a [TokenId],
    /// Report the token's log probability and those of this many of the most probable tokens.
    pub(crate) logprobs: Option<usize>,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) token: TokenId,
    pub(crate) logprobs: Option<TokenLogprobs>,
}

/// Why no token can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SamplingError {
    /// The model's arithmetic went wrong.
    #[error("a logit is infinite or no number")]
    NotFinite,
    /// Every token is banned.
    #[error("no token is left to choose from")]
    NothingLeft,
}

impl Sampler {
    pub(crate) fn new() -> Self {
        Self {
            weights: Vec::new(),
            truncation: Truncation::new(),
        }
    }

    /// Chooses the next token from a row of raw logits, which is used up.
    ///
    /// # Errors
    ///
    /// [`SamplingError`].
    pub(crate) fn choose(
        &mut self,
        logits: &mut [f32],
        rules: &TokenRules<'_>,
    ) -> Result<Choice, SamplingError> {
        let raw_greatest = greatest(logits).ok_or(SamplingError::NotFinite)?;
        let distribution = rules
            .logprobs
            .map(|top| Distribution::new(logits, raw_greatest, top));
        let raw = distribution.is_some().then(|| logits.to_vec());
        let greatest = shape(logits, rules).unwrap_or(raw_greatest);
        if greatest == f32::NEG_INFINITY {
            return Err(SamplingError::NothingLeft);
        }
        let token = if rules.params.temperature == 0.0 {
            greedy(logits, greatest)
        } else {
            self.draw(logits, greatest, rules)
        };
        let logprobs = distribution
            .zip(raw)
            .map(|(distribution, raw)| distribution.report(raw[token as usize]));
        Ok(Choice { token, logprobs })
    }

    fn draw(&mut self, logits: &mut [f32], greatest: f32, rules: &TokenRules<'_>) -> TokenId {
        let params = rules.params;
        let total = weigh(logits, greatest, params.temperature, &mut self.weights);
        let (distances, weights) = (&*logits, &self.weights);
        let kept = self.truncation.keep(distances, weights, total, params);
        let bits = random_bits(params.seed, rules.choice_index, rules.position as u64);
        let mut left = below(bits, kept.weight);
        // In order of id, which needs no ranking.
        (0..)
            .zip(distances.iter().zip(weights))
            .filter(|(token, (distance, weight))| kept.contains(*token, **distance, **weight))
            .find_map(|(token, (_, weight))| {
                if left < *weight {
                    return Some(token);
                }
                left -= weight;
                None
            })
            .expect("the number is below the sum of the weights")
    }
}

/// Applies bias, penalties and bans. The greatest logit, if it may have changed.
fn shape(logits: &mut [f32], rules: &TokenRules<'_>) -> Option<f32> {
    let params = rules.params;
    let has_penalties = params.has_penalties();
    if params.logit_bias.is_empty() && !has_penalties && rules.banned.is_empty() {
        return None;
    }
    for (token, bias) in &params.logit_bias {
        let logit = &mut logits[*token as usize];
        *logit = (*logit + bias).clamp(f32::MIN, f32::MAX);
    }
    if has_penalties {
        rules.history.penalise(logits, params);
    }
    for token in rules.banned {
        logits[*token as usize] = f32::NEG_INFINITY;
    }
    Some(logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)))
}

/// The first of the greatest.
fn greedy(logits: &[f32], greatest: f32) -> TokenId {
    (0..)
        .zip(logits)
        .find_map(|(token, logit)| (*logit == greatest).then_some(token))
        .expect("the greatest logit is one of them")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
