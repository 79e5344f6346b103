use forebay_protocols::SamplingRules;
use forebay_tokens::TokenId;
use rustc_hash::FxHashMap;

/// Which tokens a sequence has, for penalties: how often each of prompt and output occurs in the
/// output.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenHistory {
    in_output: FxHashMap<TokenId, u32>,
}

impl TokenHistory {
    /// Of a sequence that begins with `prompt`.
    pub(crate) fn new(prompt: &[TokenId]) -> Self {
        Self {
            in_output: prompt.iter().map(|token| (*token, 0)).collect(),
        }
    }

    /// Takes in a token of the output.
    pub(crate) fn push(&mut self, token: TokenId) {
        *self.in_output.entry(token).or_default() += 1;
    }

    /// Applies the penalties: of repetition to what is in prompt or output, then of frequency and
    /// presence to what is in the output. Logits stay finite.
    pub(super) fn penalise(&self, logits: &mut [f32], params: &SamplingRules) {
        // Each token is changed on its own, so the map's order does not matter.
        for (token, count) in &self.in_output {
            let logit = &mut logits[*token as usize];
            let repeated = if *logit > 0.0 {
                *logit / params.repetition_penalty
            } else {
                *logit * params.repetition_penalty
            };
            let mut penalised = repeated;
            if *count > 0 {
                penalised -= params.frequency_penalty * *count as f32;
                penalised -= params.presence_penalty;
            }
            *logit = penalised.clamp(f32::MIN, f32::MAX);
        }
    }
}
