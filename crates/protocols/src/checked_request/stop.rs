use forebay_tokens::TokenId;

use super::RequestLimits;
use crate::Error;
use crate::worker::StopConditions;

/// The tokens that end a choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopRules {
    min_tokens: usize,
    stop: Vec<TokenId>,
    /// Those of `stop` and the end-of-sequence tokens that count.
    all: Vec<TokenId>,
    n_eos: usize,
}

impl StopRules {
    pub(super) fn check(message: StopConditions, limits: &RequestLimits) -> Result<Self, Error> {
        let stop = message.stop_token_ids;
        let eos = message.eos_token_ids;
        limits.check_tokens("stop.stop_token_ids", &stop)?;
        limits.check_tokens("stop.eos_token_ids", &eos)?;
        let mut all = stop.clone();
        if !message.ignore_eos {
            all.extend(eos);
        }
        Ok(Self {
            min_tokens: message.min_tokens as usize,
            n_eos: all.len() - stop.len(),
            stop,
            all,
        })
    }

    /// What may not be the token at `position` of the choice, from 0.
    pub fn banned(&self, position: usize) -> &[TokenId] {
        if position < self.min_tokens {
            &self.all
        } else {
            &[]
        }
    }

    /// The model's end-of-sequence tokens that end the choice; none if they are to be ignored.
    pub fn end_of_sequence(&self) -> &[TokenId] {
        &self.all[self.all.len() - self.n_eos..]
    }

    /// Whether a token ends the choice.
    pub fn ends(&self, token: TokenId) -> bool {
        self.all.contains(&token)
    }

    /// A token that ends the choice, if that was asked for and is not the model's own.
    pub fn matched(&self, token: TokenId) -> Option<TokenId> {
        self.stop.contains(&token).then_some(token)
    }
}
